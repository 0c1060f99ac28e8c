#include "engine/model/pack.h"

#include <cstdlib>
#include <string>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/checkpoint.h"
#include "engine/model/families.h"
#include "engine/model/pack_layout.h"
#include "engine/model/pack_plan.h"
#include "engine/model/pack_writer.h"
#include "engine/model/packed_model.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;

// A directory that goes away with its contents unless it was kept.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(fs::path path) : path_(std::move(path)) {}
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }

  const fs::path& path() const { return path_; }
  void Keep() { path_.clear(); }

 private:
  fs::path path_;
};

absl::Status SystemFailure(const std::string& what,
                           const std::error_code& error) {
  const absl::StatusCode code =
      error == std::errc::permission_denied ||
              error == std::errc::read_only_file_system ||
              error == std::errc::operation_not_permitted
          ? absl::StatusCode::kPermissionDenied
      : error == std::errc::no_space_on_device
          ? absl::StatusCode::kResourceExhausted
          : absl::StatusCode::kFailedPrecondition;
  return absl::Status(code,
                      absl::StrCat("cannot ", what, ": ", error.message()));
}

absl::Status CreateDirectories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return SystemFailure("create " + path.string(), error);
  return absl::OkStatus();
}

// Everything about a source that is known before a weight is read.
struct Source {
  Checkpoint checkpoint;
  PackPlan plan;
  std::string key;
};

absl::StatusOr<Source> OpenSource(const fs::path& path,
                                  const PackOptions& options) {
  if (IsPacked(path)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), " is already a packed model"));
  }
  ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(path));
  ASSIGN_OR_RETURN(const ModelConfig config,
                   ParseModelConfig(checkpoint.config()));
  RETURN_IF_ERROR(
      ParseGenerationDefaults(checkpoint.config(), checkpoint.generation())
          .status());
  ASSIGN_OR_RETURN(const Family* family, FindFamily(config.model_type));
  ASSIGN_OR_RETURN(PackPlan plan, PlanPack(checkpoint, config, *family));
  const TargetTypes& targets = options.targets;
  SetTypes(targets, plan);
  ASSIGN_OR_RETURN(std::string key, checkpoint.ContentKey());
  // Another pack of the same source is another model.
  if (targets.experts)
    absl::StrAppend(&key, "-", Absl(DTypeName(*targets.experts)));
  if (targets.resident)
    absl::StrAppend(&key, "+", Absl(DTypeName(*targets.resident)));
  if (options.importance != nullptr && !options.importance->empty())
    absl::StrAppend(&key, "/", options.importance->Digest());
  return Source{std::move(checkpoint), std::move(plan), std::move(key)};
}

// Refuses at once what would fail at the end of a long copy.
absl::Status CheckSpace(const fs::path& dir, int64_t needed) {
  std::error_code error;
  const fs::space_info space = fs::space(dir, error);
  if (error || space.available >= static_cast<uintmax_t>(needed)) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      dir.string(), " has ", FormatBytes(static_cast<int64_t>(space.available)),
      " free; the packed model needs ", FormatBytes(needed)));
}

// A path whose last part is a name, as siblings are made from it.
fs::path Named(const fs::path& path) {
  fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

// Writes the packed model beside `target` and renames it. The caller holds the
// lock of `target`, so what an earlier pack left there is dead.
absl::Status PackLocked(const Source& source, const fs::path& target,
                        const PackOptions& options) {
  const fs::path parent = target.parent_path();
  TemporaryDirectory work(
      parent / absl::StrCat(".", target.filename().string(), ".packing"));
  std::error_code error;
  fs::remove_all(work.path(), error);
  if (error) return SystemFailure("remove " + work.path().string(), error);
  RETURN_IF_ERROR(CheckSpace(parent, source.plan.total_bytes));
  RETURN_IF_ERROR(CreateDirectories(work.path()));
  RETURN_IF_ERROR(source.checkpoint.WriteDescriptions(work.path()));
  PackReport report;
  ASSIGN_OR_RETURN(
      Manifest manifest,
      WriteWeights(source.checkpoint, source.plan, work.path(),
                   {options.progress, report, options.importance}));
  ASSIGN_OR_RETURN(const std::string content, source.checkpoint.ContentKey());
  if (!source.key.starts_with(content)) {
    return absl::FailedPreconditionError(
        absl::StrCat(source.checkpoint.path().string(),
                     " was changed while it was packed; nothing was kept"));
  }
  manifest.source_key = source.key;
  RETURN_IF_ERROR(WriteNewFile(work.path() / kManifestFile, manifest.ToJson()));
  RETURN_IF_ERROR(SyncDirectory(work.path()));
  fs::rename(work.path(), target, error);
  if (error) return SystemFailure("rename to " + target.string(), error);
  work.Keep();
  if (options.report) options.report(report);
  return SyncDirectory(parent);
}

absl::StatusOr<FileLock> LockFor(const fs::path& target) {
  RETURN_IF_ERROR(CreateDirectories(target.parent_path()));
  return FileLock::Acquire(
      target.parent_path() /
          absl::StrCat(".", target.filename().string(), ".lock"),
      [&] {
        spdlog::info("waiting for another process that packs {}",
                     target.string());
      });
}

// Whether `target` is free for a pack of `key`; false: it is there already.
absl::StatusOr<bool> NeedsPacking(const fs::path& target,
                                  const std::string& key) {
  std::error_code error;
  if (!IsPacked(target)) {
    const bool free = !fs::exists(target, error) || fs::is_empty(target, error);
    if (free && !error) return true;
    return absl::AlreadyExistsError(
        absl::StrCat(target.string(),
                     " exists and is not a packed model; name another "
                     "directory"));
  }
  ASSIGN_OR_RETURN(const Manifest manifest, Manifest::Read(target));
  if (manifest.source_key != key) {
    return absl::AlreadyExistsError(absl::StrCat(
        target.string(), " is a packed model of another source (key ",
        Printable(manifest.source_key), ", this one has ", key, ")"));
  }
  return false;
}

}  // namespace

bool IsPacked(const fs::path& dir) {
  std::error_code ignored;
  return fs::exists(dir / kManifestFile, ignored);
}

absl::Status Pack(const fs::path& source_dir, const fs::path& target_dir,
                  const PackOptions& options) {
  ASSIGN_OR_RETURN(const Source source, OpenSource(source_dir, options));
  const fs::path target = Named(target_dir);
  ASSIGN_OR_RETURN(const FileLock lock, LockFor(target));
  ASSIGN_OR_RETURN(const bool needed, NeedsPacking(target, source.key));
  return needed ? PackLocked(source, target, options) : absl::OkStatus();
}

absl::StatusOr<fs::path> PackedCopy(const fs::path& source_dir,
                                    const fs::path& cache_dir,
                                    const PackOptions& options) {
  if (IsPacked(source_dir)) return source_dir;
  ASSIGN_OR_RETURN(const Source source, OpenSource(source_dir, options));
  // The version is in the name: another one of this program keeps its own.
  const fs::path target =
      Named(cache_dir) /
      absl::StrCat(Named(source_dir).filename().string().substr(0, 64), "-",
                   source.key, "-v", kPackFormatVersion, "-",
                   Absl(kernels::kPanelLayoutName));
  ASSIGN_OR_RETURN(const FileLock lock, LockFor(target));
  if (IsPacked(target)) {
    const absl::Status opened = PackedModel::Open(target).status();
    if (opened.ok()) return target;
    spdlog::warn("packing again: {}", std::string(opened.message()));
  }
  std::error_code error;
  fs::remove_all(target, error);
  if (error) return SystemFailure("remove " + target.string(), error);
  RETURN_IF_ERROR(PackLocked(source, target, options));
  return target;
}

}  // namespace bullpen
