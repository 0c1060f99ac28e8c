#include "tools/inspect.h"

#include <algorithm>
#include <map>
#include <system_error>
#include <variant>

#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/checkpoint.h"
#include "engine/model/config_fields.h"
#include "engine/model/gguf.h"
#include "engine/model/pack.h"
#include "engine/model/pack_layout.h"
#include "engine/model/packed_model.h"
#include "engine/model/safetensors.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr size_t kShownElements = 8;

template <typename T>
ordered_json Shortened(const std::vector<T>& list) {
  if (list.size() <= kShownElements) return list;
  const std::vector<T> first(list.begin(), list.begin() + kShownElements);
  return {{"count", list.size()}, {"first", first}};
}

struct ToJson {
  template <typename T>
  ordered_json operator()(const T& value) const {
    return value;
  }
  template <typename T>
  ordered_json operator()(const std::vector<T>& value) const {
    return Shortened(value);
  }
};

ordered_json TensorJson(const std::string& name, const TensorInfo& info) {
  return {{"name", name},
          {"dtype", info.dtype},
          {"shape", info.shape},
          {"bytes", info.bytes}};
}

void AddTensors(const std::map<std::string, TensorInfo>& tensors,
                ordered_json& list) {
  for (const auto& [name, info] : tensors) {
    list.push_back(TensorJson(name, info));
  }
}

// Config keys, with long lists cut.
ordered_json ConfigJson(const nlohmann::json& config) {
  ordered_json shown = ordered_json::object();
  for (const auto& [key, value] : config.items()) {
    shown[key] = value.is_array() && value.size() > kShownElements
                     ? Shortened(value.get<std::vector<nlohmann::json>>())
                     : ordered_json(value);
  }
  return shown;
}

absl::StatusOr<ordered_json> InspectGguf(const fs::path& path) {
  using Files = std::vector<GgufFile>;
  ASSIGN_OR_RETURN(const Files files, OpenGgufSplit(path));
  ordered_json found = {{"kind", "gguf"},
                        {"version", files.front().version()},
                        {"metadata", ordered_json::object()},
                        {"tensors", ordered_json::array()}};
  for (const auto& [key, value] : files.front().metadata()) {
    found["metadata"][key] = std::visit(ToJson(), value);
  }
  for (const GgufFile& file : files) {
    AddTensors(file.tensors(), found["tensors"]);
  }
  return found;
}

absl::StatusOr<ordered_json> InspectSafetensors(const fs::path& path) {
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  ordered_json found = {{"kind", "safetensors"},
                        {"metadata", ordered_json::object()},
                        {"tensors", ordered_json::array()}};
  AddTensors(file.tensors(), found["tensors"]);
  return found;
}

absl::StatusOr<ordered_json> InspectDirectory(const fs::path& path) {
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(path));
  ordered_json found = {{"kind", "directory"},
                        {"metadata", ConfigJson(checkpoint.config())},
                        {"tensors", ordered_json::array()}};
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    found["tensors"].push_back(TensorJson(name, tensor.info));
  }
  return found;
}

absl::StatusOr<ordered_json> InspectPacked(const fs::path& path) {
  ASSIGN_OR_RETURN(const PackedModel model, PackedModel::Open(path));
  ASSIGN_OR_RETURN(
      const nlohmann::json config,
      ReadJsonFile(path / "config.json", absl::StatusCode::kInvalidArgument));
  ordered_json found = {{"kind", "packed"},
                        {"metadata", ConfigJson(config)},
                        {"tensors", ordered_json::array()}};
  for (const auto& [name, tensor] : model.tensors()) {
    found["tensors"].push_back({{"name", name},
                                {"dtype", std::string(DTypeName(tensor.dtype))},
                                {"shape", {tensor.rows, tensor.cols}},
                                {"bytes", tensor.bytes}});
  }
  const auto& layers = model.catalog().layers;
  for (size_t l = 0; l < layers.size(); ++l) {
    const kernels::ExpertShape& shape = model.expert_shape(static_cast<int>(l));
    std::string dtype(DTypeName(shape.dtype));
    if (shape.down_dtype() != shape.dtype) {
      dtype += absl::StrCat(" and ", Absl(DTypeName(shape.down_dtype())));
    }
    const int64_t experts = static_cast<int64_t>(layers[l].experts.size());
    found["tensors"].push_back(
        {{"name", absl::StrCat("layers.", l, ".experts")},
         {"dtype", dtype},
         {"shape", {experts, 3, shape.inner, shape.dim}},
         {"bytes", experts * layers[l].blob_bytes}});
  }
  return found;
}

// In ASCII, and on one line.
std::string Text(const ordered_json& value) {
  constexpr size_t kLimit = 200;
  std::string text =
      value.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
  if (text.size() > kLimit) text = text.substr(0, kLimit) + "...";
  return text;
}

}  // namespace

absl::StatusOr<ordered_json> InspectModel(const fs::path& path) {
  std::error_code ignored;
  const bool file = fs::is_regular_file(path, ignored);
  absl::StatusOr<ordered_json> found =
      file && LooksLikeGguf(path) ? InspectGguf(path)
      : file                      ? InspectSafetensors(path)
      : IsPacked(path)            ? InspectPacked(path)
                                  : InspectDirectory(path);
  RETURN_IF_ERROR(found.status());
  ordered_json& types = (*found)["types"] = ordered_json::object();
  for (const ordered_json& tensor : (*found)["tensors"]) {
    ordered_json& sum = types[tensor["dtype"].get<std::string>()];
    if (sum.is_null()) sum = {{"tensors", 0}, {"bytes", 0}};
    sum["tensors"] = sum["tensors"].get<int64_t>() + 1;
    sum["bytes"] = sum["bytes"].get<int64_t>() + tensor["bytes"].get<int64_t>();
  }
  return found;
}

std::string InspectionText(const ordered_json& inspection) {
  std::string text = inspection["kind"].get<std::string>() + "\n";
  for (const auto& [key, value] : inspection["metadata"].items()) {
    absl::StrAppend(&text, "  ", Printable(key), " = ", Text(value), "\n");
  }
  size_t width = 0;
  for (const ordered_json& tensor : inspection["tensors"]) {
    width = std::max(width, tensor["name"].get<std::string>().size());
  }
  width = std::min<size_t>(width, 64);
  int64_t bytes = 0;
  for (const ordered_json& tensor : inspection["tensors"]) {
    bytes += tensor["bytes"].get<int64_t>();
    absl::StrAppendFormat(
        &text, "  %-*s  %-8s  %-20s  %s\n", static_cast<int>(width),
        Printable(tensor["name"].get<std::string>()),
        tensor["dtype"].get<std::string>(), Text(tensor["shape"]),
        FormatBytes(tensor["bytes"].get<int64_t>()));
  }
  for (const auto& [type, sum] : inspection["types"].items()) {
    absl::StrAppendFormat(&text, "%-8s  %d tensors  %s\n", type,
                          sum["tensors"].get<int64_t>(),
                          FormatBytes(sum["bytes"].get<int64_t>()));
  }
  absl::StrAppendFormat(&text, "%d tensors, %s\n", inspection["tensors"].size(),
                        FormatBytes(bytes));
  return text;
}

}  // namespace bullpen
