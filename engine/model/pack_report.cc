#include "engine/model/pack_report.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/strings.h"

namespace bullpen {
namespace {

using nlohmann::ordered_json;

// The same matrix of many layers, as far as the same became of it.
struct Kind {
  PackedTensor sum;  // its name is the kind's
  int64_t tensors = 0;
};

// "qkv" of "layers.3.qkv".
std::string KindOf(const std::string& name) {
  constexpr std::string_view kLayers = "layers.";
  if (!name.starts_with(kLayers)) return name;
  return name.substr(name.find('.', kLayers.size()) + 1);
}

// In the order in which they come first.
std::vector<Kind> KindsOf(const std::vector<PackedTensor>& tensors) {
  std::vector<Kind> kinds;
  for (const PackedTensor& tensor : tensors) {
    const std::string name = KindOf(tensor.name);
    auto kind = std::ranges::find_if(kinds, [&](const Kind& known) {
      return known.sum.name == name && known.sum.from == tensor.from &&
             known.sum.to == tensor.to && known.sum.reason == tensor.reason;
    });
    if (kind == kinds.end()) {
      kinds.push_back({.sum = {.name = name,
                               .from = tensor.from,
                               .to = tensor.to,
                               .reason = tensor.reason}});
      kind = std::prev(kinds.end());
    }
    kind->sum.Add(tensor);
    ++kind->tensors;
  }
  return kinds;
}

double BitsOf(const PackedTensor& tensor) {
  return 8.0 * static_cast<double>(tensor.packed_bytes) /
         static_cast<double>(std::max<int64_t>(tensor.weights, 1));
}

ordered_json JsonOf(const PackedTensor& tensor) {
  ordered_json json = {{"name", tensor.name},
                       {"from", tensor.from},
                       {"to", tensor.to},
                       {"weights", tensor.weights},
                       {"source_bytes", tensor.source_bytes},
                       {"packed_bytes", tensor.packed_bytes}};
  if (!tensor.reason.empty()) json["reason"] = tensor.reason;
  if (tensor.squares > 0) json["relative_error"] = tensor.relative_error();
  if (tensor.weighted_squares > 0) {
    json["relative_weighted_error"] = tensor.relative_weighted_error();
  }
  return json;
}

std::string LineOf(const Kind& kind) {
  const PackedTensor& sum = kind.sum;
  const std::string types =
      sum.from == sum.to ? sum.to : absl::StrCat(sum.from, " -> ", sum.to);
  std::string line = absl::StrFormat(
      "%-15s %-18s %4d x %13d weights  %11s -> %11s  %5.2f bits", sum.name,
      types, kind.tensors, sum.weights / kind.tensors,
      FormatBytes(sum.source_bytes), FormatBytes(sum.packed_bytes),
      BitsOf(sum));
  if (sum.squares > 0) {
    absl::StrAppendFormat(&line, "  error %.4f", sum.relative_error());
  }
  if (sum.weighted_squares > 0) {
    absl::StrAppendFormat(&line, " (by importance %.4f)",
                          sum.relative_weighted_error());
  }
  if (!sum.reason.empty()) absl::StrAppend(&line, "  ", sum.reason);
  return line + "\n";
}

}  // namespace

void PackedTensor::Add(const PackedTensor& other) {
  weights += other.weights;
  source_bytes += other.source_bytes;
  packed_bytes += other.packed_bytes;
  squared_error += other.squared_error;
  squares += other.squares;
  weighted_error += other.weighted_error;
  weighted_squares += other.weighted_squares;
}

double PackedTensor::relative_error() const {
  return std::sqrt(squared_error / squares);
}

double PackedTensor::relative_weighted_error() const {
  return std::sqrt(weighted_error / weighted_squares);
}

std::string PackReport::ToText() const {
  std::string text;
  Kind total = {.sum = {.name = "all"}};
  for (const Kind& kind : KindsOf(tensors)) {
    absl::StrAppend(&text, LineOf(kind));
    total.sum.Add(kind.sum);
  }
  absl::StrAppendFormat(&text, "%d matrices, %d weights, %s -> %s\n",
                        tensors.size(), total.sum.weights,
                        FormatBytes(total.sum.source_bytes),
                        FormatBytes(total.sum.packed_bytes));
  // Such as FP8, which only F32 holds exactly.
  if (total.sum.packed_bytes > 2 * total.sum.source_bytes) {
    absl::StrAppend(&text,
                    "the packed model is exact, but far larger than its "
                    "source; --experts q8_0 --resident q8_0 makes it as "
                    "small as that\n");
  }
  return text;
}

ordered_json PackReport::ToJson() const {
  ordered_json json = {{"kinds", ordered_json::array()},
                       {"tensors", ordered_json::array()}};
  for (const Kind& kind : KindsOf(tensors)) {
    json["kinds"].push_back(JsonOf(kind.sum));
    json["kinds"].back()["tensors"] = kind.tensors;
  }
  for (const PackedTensor& tensor : tensors) {
    json["tensors"].push_back(JsonOf(tensor));
  }
  return json;
}

}  // namespace bullpen
