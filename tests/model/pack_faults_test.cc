#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "base/strings.h"
#include "engine/model/pack.h"
#include "engine/model/packed_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/checkpoint_writer.h"
#include "tests/model/packed_weights.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const fs::path kSource = "tests/golden/qwen3_moe";

// A directory of its own for each test, with everything that may be in it.
class PackFaults : public ::testing::Test {
 protected:
  PackFaults()
      : dir_(ScratchPath(
            ::testing::UnitTest::GetInstance()->current_test_info()->name())),
        target_(dir_ / "packed") {
    MakeEmpty(dir_);
  }

  std::vector<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir_)) {
      names.insert(entry.path().filename().string());
    }
    return {names.begin(), names.end()};
  }

  // Status of a child process that runs `work` and exits with its value.
  static int RunChild(const std::function<int()>& work) {
    return Await(StartChild(work));
  }
  static pid_t StartChild(const std::function<int()>& work) {
    const pid_t child = fork();
    if (child == 0) _exit(work());
    return child;
  }
  static int Await(pid_t child) {
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }

  const fs::path dir_;
  const fs::path target_;
};

TEST_F(PackFaults, KilledPackLeavesNothingThatLooksFinished) {
  for (const double share : {0.0, 0.3, 0.6, 1.0}) {
    const int status = RunChild([&] {
      PackOptions options;
      options.progress = [&](int64_t done, int64_t total) {
        if (static_cast<double>(done) >= share * static_cast<double>(total)) {
          raise(SIGKILL);
        }
      };
      return Pack(kSource, target_, options).ok() ? 0 : 1;
    });
    ASSERT_TRUE(WIFSIGNALED(status)) << share;
    EXPECT_FALSE(IsPacked(target_)) << share;
    EXPECT_FALSE(fs::exists(target_)) << share;
    EXPECT_FALSE(IsPacked(dir_ / ".packed.packing")) << share;

    ASSERT_TRUE(Pack(kSource, target_, {}).ok()) << share;
    EXPECT_THAT(Names(), ElementsAre("packed")) << share;
    ExpectSameWeights(ReadTensors(kSource / "model.safetensors"),
                      *PackedModel::Open(target_));
    fs::remove_all(target_);
  }
}

TEST_F(PackFaults, TwoProcessesPackOnce) {
  const auto work = [&] {
    bool packed = false;
    PackOptions options;
    options.progress = [&](int64_t, int64_t) { packed = true; };
    const auto copy = PackedCopy(kSource, dir_, options);
    if (!copy.ok() || !PackedModel::Open(*copy).ok()) return 2;
    return packed ? 1 : 0;
  };
  const pid_t first = StartChild(work);
  const pid_t second = StartChild(work);
  const int a = Await(first);
  const int b = Await(second);
  ASSERT_TRUE(WIFEXITED(a) && WIFEXITED(b));
  EXPECT_EQ(WEXITSTATUS(a) + WEXITSTATUS(b), 1)
      << WEXITSTATUS(a) << " and " << WEXITSTATUS(b);
  EXPECT_EQ(Names().size(), 1u);
}

TEST_F(PackFaults, FullDiskIsAnErrorAndLeavesNothing) {
  const int status = RunChild([&] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {100'000, 100'000};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    const absl::Status packed = Pack(kSource, target_, {});
    const std::string message(packed.message());
    return packed.code() == absl::StatusCode::kResourceExhausted &&
                   message.find("resident.safetensors") != std::string::npos
               ? 0
               : 1;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(PackFaults, SourceThatChangesMeanwhileIsNotPacked) {
  const fs::path source = dir_ / "source";
  fs::copy(kSource, source);
  for (const bool shrink : {false, true}) {
    PackOptions options;
    options.progress = [&](int64_t, int64_t) {
      const fs::path weights = source / "model.safetensors";
      if (shrink) fs::resize_file(weights, 100'000);
      fs::last_write_time(
          weights, fs::file_time_type::clock::now() + std::chrono::hours(1));
    };
    const absl::Status status = Pack(source, target_, options);
    EXPECT_EQ(status.code(), shrink ? absl::StatusCode::kDataLoss
                                    : absl::StatusCode::kFailedPrecondition)
        << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(source.string()));
    EXPECT_THAT(Names(), ElementsAre("source"));
  }
}

TEST_F(PackFaults, UnwritableTargetIsNamed) {
  WriteText(dir_ / "file", "x");
  const absl::Status status = Pack(kSource, dir_ / "file" / "packed", {});
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()),
              HasSubstr((dir_ / "file").string()));
  EXPECT_THAT(Names(), ElementsAre("file"));
}

TEST_F(PackFaults, WhatIsThereIsNotReplaced) {
  ASSERT_TRUE(Pack(kSource, target_, {}).ok());
  EXPECT_TRUE(Pack(kSource, target_, {}).ok()) << "the same source again";
  const absl::Status other = Pack("tests/golden/qwen3", target_, {});
  EXPECT_EQ(other.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(other.message()), HasSubstr("another source"));

  fs::create_directory(dir_ / "mine");
  EXPECT_TRUE(Pack(kSource, dir_ / "mine", {}).ok()) << "an empty directory";
  fs::create_directory(dir_ / "full");
  WriteText(dir_ / "full" / "letter.txt", "dear");
  EXPECT_EQ(Pack(kSource, dir_ / "full", {}).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReadText(dir_ / "full" / "letter.txt"), "dear");
  EXPECT_EQ(Pack(target_, dir_ / "twice", {}).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(PackFaults, CopyIsPackedOnceAndKeyedByTheSource) {
  int packs = 0;
  PackOptions options;
  options.progress = [&](int64_t done, int64_t total) {
    packs += done == total;
  };
  const auto first = PackedCopy(kSource, dir_, options);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(packs, 1);
  const auto again = PackedCopy(kSource, dir_, options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, *first);
  EXPECT_EQ(packs, 1);
  const auto packed_itself = PackedCopy(*first, dir_, options);
  ASSERT_TRUE(packed_itself.ok()) << packed_itself.status();
  EXPECT_EQ(*packed_itself, *first);

  const auto other = PackedCopy("tests/golden/qwen3", dir_, options);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_NE(*other, *first);
}

TEST_F(PackFaults, DamagedCopyIsPackedAgain) {
  const auto first = PackedCopy(kSource, dir_, {});
  ASSERT_TRUE(first.ok()) << first.status();
  fs::resize_file(*first / "experts.safetensors", 5000);
  const auto again = PackedCopy(kSource, dir_, {});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, *first);
  EXPECT_TRUE(PackedModel::Open(*again).ok());
}

// Faults of a packed model; each test breaks one thing of a good one.
class OpenFaults : public PackFaults {
 protected:
  OpenFaults() { EXPECT_TRUE(Pack(kSource, target_, {}).ok()); }

  std::string OpenMessage(absl::StatusCode code) const {
    const absl::Status status = PackedModel::Open(target_).status();
    EXPECT_EQ(status.code(), code) << status;
    return std::string(status.message());
  }
  void EditManifest(const std::function<void(nlohmann::json&)>& edit) {
    nlohmann::json manifest = ReadJson(target_ / "manifest.json");
    edit(manifest);
    WriteText(target_ / "manifest.json", manifest.dump());
  }
};

TEST_F(OpenFaults, FlippedByteInResidentWeightsIsDataLoss) {
  const int64_t size =
      static_cast<int64_t>(fs::file_size(target_ / "resident.safetensors"));
  FlipByte(target_ / "resident.safetensors", size / 2);
  const auto model = PackedModel::Open(target_);
  ASSERT_TRUE(model.ok()) << model.status();
  const absl::Status status = model->LoadResident().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("resident.safetensors"), HasSubstr("checksum")));
}

TEST_F(OpenFaults, TruncatedFilesAreDataLoss) {
  for (const char* name : {"experts.safetensors", "resident.safetensors"}) {
    const std::string whole = ReadText(target_ / name);
    fs::resize_file(target_ / name, whole.size() - 4096);
    EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
                AllOf(HasSubstr(name), HasSubstr("truncated?")));
    WriteText(target_ / name, whole);
  }
}

TEST_F(OpenFaults, MissingFilesAreNamed) {
  for (const char* name : {"experts.safetensors", "resident.safetensors",
                           "config.json", "manifest.json"}) {
    const std::string whole = ReadText(target_ / name);
    fs::remove(target_ / name);
    EXPECT_THAT(OpenMessage(absl::StatusCode::kNotFound), HasSubstr(name));
    WriteText(target_ / name, whole);
  }
  EXPECT_TRUE(PackedModel::Open(target_).ok());
}

TEST_F(OpenFaults, AnotherVersionOrLayoutSaysSo) {
  EditManifest([](nlohmann::json& manifest) { manifest["version"] = 7; });
  EXPECT_THAT(OpenMessage(absl::StatusCode::kFailedPrecondition),
              AllOf(HasSubstr("version 7"), HasSubstr("reads"),
                    HasSubstr("pack the model again")));
  EditManifest([](nlohmann::json& manifest) {
    manifest["version"] = 1;
    manifest["layout"] = "panel32.v9";
  });
  EXPECT_THAT(OpenMessage(absl::StatusCode::kFailedPrecondition),
              HasSubstr("panel32.v9"));
}

TEST_F(OpenFaults, BadManifestFieldsAreNamed) {
  const std::string whole = ReadText(target_ / "manifest.json");
  const auto expect = [&](const std::function<void(nlohmann::json&)>& edit,
                          const std::string& message) {
    EditManifest(edit);
    EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss), HasSubstr(message));
    WriteText(target_ / "manifest.json", whole);
  };
  using Json = nlohmann::json;
  expect([](Json& m) { m.erase("version"); }, "version is missing");
  expect([](Json& m) { m["resident_checksum"] = "xyz"; }, "16 hex digits");
  expect([](Json& m) { m["resident"].erase("embed"); }, "no 'embed'");
  expect([](Json& m) { m["resident"]["embed"]["dtype"] = "F32"; },
         "tensor 'embed' is U8");
  expect([](Json& m) { m["resident"]["embed"]["dtype"] = "Q4"; }, "\"Q4\"");
  expect([](Json& m) { m["layers"].erase(0); }, "has 2 layers");
  expect([](Json& m) { m["layers"] = 3; }, "a list of layers");
  expect([](Json& m) { m["layers"][1]["checksums"].erase(0); },
         "layer 1 has 7 checksums, but config.json says 8");
  expect([](Json& m) { m["layers"][1]["checksums"][2] = 12; }, "16 hex digits");
  expect([](Json& m) { m["layers"][2]["dtype"] = "F32"; },
         "tensor 'layers.2.experts.0' is U8");
  WriteText(target_ / "manifest.json", "{");
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              HasSubstr("not valid JSON"));
}

TEST_F(OpenFaults, MisalignedResidentWeightsAreNamed) {
  const fs::path path = target_ / "resident.safetensors";
  std::vector<FakeTensor> tensors = ReadTensors(path);
  tensors.insert(tensors.begin(), {"a", "U8", {8}, std::string(8, 'x')});
  WriteTensors(path, tensors);
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              HasSubstr("at byte 8, which is not a multiple of 64"));
  tensors[0].shape = {64};
  tensors[0].bytes = std::string(64, 'x');
  WriteTensors(path, tensors);
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              HasSubstr("25 tensors, but config.json says 24"));
}

TEST_F(OpenFaults, MisalignedOrForeignExpertsAreNamed) {
  const fs::path path = target_ / "experts.safetensors";
  std::vector<FakeTensor> tensors = ReadTensors(path);
  WriteTensors(path, tensors);  // Without the padding of the header.
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              HasSubstr("not a multiple of 4096"));
  tensors[0].name = "layers.9.experts.9";
  WriteTensors(path, tensors);
  EXPECT_THAT(OpenMessage(absl::StatusCode::kDataLoss),
              HasSubstr("'layers.0.experts.0' is missing"));
}

}  // namespace
}  // namespace bullpen
