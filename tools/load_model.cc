#include "tools/load_model.h"

#include <system_error>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/pack.h"
#include "engine/model/packed_model.h"
#include "tools/progress.h"

namespace bullpen {

absl::StatusOr<std::filesystem::path> FindPacked(
    const std::filesystem::path& source,
    const std::filesystem::path& cache_dir) {
  std::error_code error;
  if (!std::filesystem::exists(source, error)) {
    return absl::NotFoundError(
        absl::StrCat("there is no model at '", source.string(), "'"));
  }
  Progress progress("packing " + source.string());
  PackOptions options;
  options.progress = [&progress](int64_t done, int64_t total) {
    progress.Update(done, total);
  };
  return PackedCopy(source, cache_dir, options);
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(
    const std::filesystem::path& source, const ModelFlags& flags,
    Metrics& metrics) {
  ASSIGN_OR_RETURN(const ModelOptions options, ToModelOptions(flags));
  ASSIGN_OR_RETURN(const std::filesystem::path packed,
                   FindPacked(source, flags.cache_dir));
  ASSIGN_OR_RETURN(PackedModel model, PackedModel::Open(packed));
  return Model::Load(std::move(model), options, metrics);
}

}  // namespace bullpen
