#include "engine/experts/blob_reader.h"

#include <utility>

#include "base/check.h"
#include "base/direct_file.h"
#include "base/status.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

class FileBlobReader final : public BlobReader {
 public:
  static absl::StatusOr<std::unique_ptr<BlobReader>> Open(
      const std::vector<std::string>& paths) {
    auto reader = std::make_unique<FileBlobReader>();
    for (const std::string& path : paths) {
      RETURN_IF_ERROR(reader->Add(path));
    }
    return reader;
  }

  absl::Status Read(int32_t file, int64_t offset,
                    std::span<std::byte> out) override {
    CHECK(file >= 0 && file < static_cast<int32_t>(files_.size())) << file;
    return files_[file].Read(offset, out, std::ssize(out));
  }

 private:
  absl::Status Add(const std::string& path) {
    absl::StatusOr<DirectFile> file = DirectFile::Open(path);
    if (!file.ok()) {
      return absl::DataLossError(file.status().message());
    }
    if (!file->direct() && !warned_) {
      spdlog::warn(
          "{}: this file system has no O_DIRECT; experts are read through "
          "the page cache, which is slower",
          path);
      warned_ = true;
    }
    files_.push_back(*std::move(file));
    return absl::OkStatus();
  }

  std::vector<DirectFile> files_;
  bool warned_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlobReader>> OpenBlobFiles(
    const std::vector<std::string>& paths) {
  return FileBlobReader::Open(paths);
}

}  // namespace bullpen
