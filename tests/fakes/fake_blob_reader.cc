#include "tests/fakes/fake_blob_reader.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/xxh3.h"

namespace bullpen {

FakeBlobReader::FakeBlobReader(std::vector<std::vector<std::byte>> files)
    : files_(std::move(files)) {}

std::vector<std::vector<std::byte>> FakeBlobReader::Load(
    const std::vector<std::string>& paths) {
  std::vector<std::vector<std::byte>> files;
  for (const std::string& path : paths) {
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    CHECK(in.good()) << path;
    std::vector<std::byte>& bytes = files.emplace_back(in.tellg());
    in.seekg(0);
    in.read(reinterpret_cast<char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
    CHECK(in.good()) << path;
  }
  return files;
}

void FakeBlobReader::PassGate(const Place& place) {
  absl::MutexLock lock(&mutex_);
  log_.push_back(place);
  const int64_t mine = ++came_;
  gate_.SignalAll();
  while (!open_ && mine > allowed_) gate_.Wait(&mutex_);
}

FakeBlobReader::Fault FakeBlobReader::Draw(const Place& place) {
  absl::MutexLock lock(&mutex_);
  const size_t size = static_cast<size_t>(place.size);
  Fault fault{.status = absl::OkStatus(), .bytes = size};
  for (const auto& [where, status] : forced_) {
    if (where.file == place.file && where.offset == place.offset) {
      fault.status = status;
    }
  }
  if (!fault.status.ok()) return fault;
  std::uniform_real_distribution<double> chance(0, 1);
  if (faults_.yields > 0) {
    fault.yields = static_cast<int32_t>(random_() % (faults_.yields + 1));
  }
  if (chance(random_) < faults_.fail) {
    fault.status = absl::DataLossError("injected: unreadable");
    fault.bytes = 0;
  } else if (chance(random_) < faults_.shorten) {
    fault.status = absl::DataLossError("injected: short read");
    fault.bytes = size / 2;
  } else {
    fault.flip = chance(random_) < faults_.corrupt;
  }
  return fault;
}

absl::Status FakeBlobReader::Read(int32_t file, int64_t offset,
                                  std::span<std::byte> out) {
  CHECK(offset % 4096 == 0 && out.size() % 4096 == 0);
  CHECK(reinterpret_cast<uintptr_t>(out.data()) % 4096 == 0);
  const Place place{file, offset, static_cast<int64_t>(out.size())};
  PassGate(place);
  const Fault fault = Draw(place);
  for (int32_t i = 0; i < fault.yields; ++i) std::this_thread::yield();
  const std::byte* source;
  {
    absl::MutexLock lock(&mutex_);
    const std::vector<std::byte>& bytes = files_[file];
    if (offset + place.size > static_cast<int64_t>(bytes.size())) {
      return absl::DataLossError(absl::StrCat("file ", file, " ends"));
    }
    source = bytes.data() + offset;
  }
  std::memcpy(out.data(), source, fault.bytes);
  if (fault.flip) out[out.size() / 3] ^= std::byte{0x10};
  return fault.status;
}

void FakeBlobReader::SetFaults(const ReadFaults& faults, uint64_t seed) {
  absl::MutexLock lock(&mutex_);
  faults_ = faults;
  random_.seed(seed);
}

void FakeBlobReader::SetStatus(int32_t file, int64_t offset,
                               absl::Status status) {
  absl::MutexLock lock(&mutex_);
  forced_.emplace_back(Place{file, offset, 0}, std::move(status));
}

void FakeBlobReader::FlipByte(int32_t file, int64_t offset) {
  absl::MutexLock lock(&mutex_);
  files_[file][static_cast<size_t>(offset)] ^= std::byte{0x01};
}

void FakeBlobReader::CloseGate() {
  absl::MutexLock lock(&mutex_);
  open_ = false;
  allowed_ = came_;
}

void FakeBlobReader::OpenGate() {
  absl::MutexLock lock(&mutex_);
  open_ = true;
  gate_.SignalAll();
}

void FakeBlobReader::AwaitAtGate(int32_t reads) {
  absl::MutexLock lock(&mutex_);
  while (came_ - allowed_ < reads) gate_.Wait(&mutex_);
}

void FakeBlobReader::LetPass(int32_t reads) {
  absl::MutexLock lock(&mutex_);
  allowed_ += reads;
  gate_.SignalAll();
}

std::vector<FakeBlobReader::Place> FakeBlobReader::log() const {
  absl::MutexLock lock(&mutex_);
  return log_;
}

std::span<const std::byte> FakeModel::Blob(int32_t layer,
                                           int32_t expert) const {
  const ExpertCatalog::Layer& source = catalog.layers[layer];
  const ExpertLocation& place = source.experts[expert];
  return std::span(files[place.file])
      .subspan(static_cast<size_t>(place.offset),
               static_cast<size_t>(source.blob_bytes));
}

FakeModel MakeFakeModel(const FakeModelShape& shape, uint64_t seed) {
  FakeModel model;
  std::mt19937_64 random(seed);
  model.files.resize(2);
  model.catalog.files = {"memory-0", "memory-1"};
  for (int32_t l = 0; l < shape.layers; ++l) {
    ExpertCatalog::Layer& layer = model.catalog.layers.emplace_back();
    layer.blob_bytes = shape.blob_bytes * (shape.same_size ? 1 : 1 + l % 3);
    for (int32_t e = 0; e < shape.experts; ++e) {
      std::vector<std::byte>& file = model.files[e % 2];
      const size_t offset = file.size();
      const size_t size = static_cast<size_t>(layer.blob_bytes);
      file.resize(offset + size);
      for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        const uint64_t word = random();
        std::memcpy(&file[offset + i], &word, sizeof(word));
      }
      layer.experts.push_back({.file = e % 2,
                               .offset = static_cast<int64_t>(offset),
                               .checksum = XXH3_64bits(&file[offset], size)});
    }
  }
  return model;
}

}  // namespace bullpen
