#include "base/numa.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <system_error>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/memory_policy.h"
#include "base/status.h"
#include "base/strings.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;

constexpr int32_t kMaxCpus = 1 << 16;
constexpr size_t kMaxFileBytes = 64 << 10;  // the kernel's are far smaller

std::optional<std::string> ReadSmallFile(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::string text(kMaxFileBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  const size_t got = static_cast<size_t>(file.gcount());
  if (file.bad() || got == text.size()) return std::nullopt;
  text.resize(got);
  return text;
}

absl::StatusOr<std::vector<int32_t>> ReadIdList(const fs::path& path,
                                                int32_t limit) {
  const std::optional<std::string> text = ReadSmallFile(path);
  if (!text.has_value()) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path.string()));
  }
  std::optional<std::vector<int32_t>> ids = ParseIdList(*text, limit);
  if (!ids.has_value()) {
    return absl::DataLossError(absl::StrCat(
        path.string(), " is no list of ids below ", limit, " such as 0-3,8"));
  }
  return *std::move(ids);
}

// "Node 0 MemTotal:  32594180 kB" by "MemTotal", in bytes. Lines of another
// form are left out.
std::map<std::string, int64_t> ParseMeminfo(std::string_view text) {
  std::map<std::string, int64_t> sizes;
  for (const absl::string_view line : absl::StrSplit(Absl(text), '\n')) {
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t kib = 0;
    if (words.size() != 5 || words[0] != "Node" || words[4] != "kB" ||
        !words[2].ends_with(':') || !absl::SimpleAtoi(words[3], &kib) ||
        kib < 0 || kib > (int64_t{1} << 50)) {
      continue;
    }
    sizes[words[2].substr(0, words[2].size() - 1)] = kib * 1024;
  }
  return sizes;
}

absl::StatusOr<NumaTopology::Node> ReadNode(const fs::path& directory,
                                            int32_t id) {
  const fs::path path = directory / "meminfo";
  const std::optional<std::string> text = ReadSmallFile(path);
  std::map<std::string, int64_t> sizes = ParseMeminfo(text.value_or(""));
  if (!sizes.contains("MemTotal")) {
    return absl::DataLossError(
        absl::StrCat(path.string(), " does not say MemTotal"));
  }
  const int64_t total = sizes["MemTotal"];
  const int64_t free = sizes["MemFree"] + sizes["Active(file)"] +
                       sizes["Inactive(file)"] + sizes["SReclaimable"];
  return NumaTopology::Node{
      .id = id, .memory_bytes = total, .free_bytes = std::min(free, total)};
}

// Nothing: the kernel does not say, so all are.
std::optional<std::vector<int32_t>> AllowedNodes(const fs::path& status) {
  constexpr std::string_view kKey = "Mems_allowed_list:";
  std::ifstream lines(status);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(kKey)) continue;
    return ParseIdList(
        Std(absl::StripAsciiWhitespace(Absl(line).substr(kKey.size()))),
        kMaxNumaNodes);
  }
  return std::nullopt;
}

int32_t SiblingNumber(const NumaSource& source, int32_t cpu) {
  const auto siblings =
      ReadIdList(source.system / "cpu" / absl::StrCat("cpu", cpu) / "topology" /
                     "thread_siblings_list",
                 kMaxCpus);
  if (!siblings.ok() || !std::ranges::binary_search(*siblings, cpu)) return 0;
  return static_cast<int32_t>(
      std::ranges::count_if(*siblings, [&](int32_t other) {
        return other < cpu &&
               std::ranges::binary_search(source.allowed_cpus, other);
      }));
}

absl::StatusOr<NumaTopology> ReadNodes(const NumaSource& source) {
  const fs::path root = source.system / "node";
  ASSIGN_OR_RETURN(const std::vector<int32_t> online,
                   ReadIdList(root / "online", kMaxNumaNodes));
  const std::optional<std::vector<int32_t>> with_memory =
      AllowedNodes(source.status);
  std::map<int32_t, int32_t> node_of;  // by CPU
  NumaTopology topology;
  for (const int32_t id : online) {
    const fs::path directory = root / absl::StrCat("node", id);
    ASSIGN_OR_RETURN(const std::vector<int32_t> cpus,
                     ReadIdList(directory / "cpulist", kMaxCpus));
    ASSIGN_OR_RETURN(NumaTopology::Node node, ReadNode(directory, id));
    if (with_memory && !std::ranges::binary_search(*with_memory, id)) {
      node = {.id = id};
    }
    bool used = node.memory_bytes > 0;
    for (const int32_t cpu : cpus) {
      if (!node_of.emplace(cpu, id).second) {
        return absl::DataLossError(absl::StrCat("CPU ", cpu, " is in nodes ",
                                                node_of[cpu], " and ", id,
                                                " of ", root.string()));
      }
      used |= std::ranges::binary_search(source.allowed_cpus, cpu);
    }
    if (used) topology.nodes.push_back(node);
  }
  for (const int32_t cpu : source.allowed_cpus) {
    if (!node_of.contains(cpu)) {
      return absl::DataLossError(
          absl::StrCat("CPU ", cpu, " is in no node of ", root.string()));
    }
    topology.cpus.push_back({.id = cpu, .node = node_of[cpu]});
  }
  return topology;
}

NumaTopology OneNode(const NumaSource& source) {
  NumaTopology topology;
  topology.nodes.emplace_back();
  for (const int32_t cpu : source.allowed_cpus) {
    topology.cpus.push_back({.id = cpu});
  }
  return topology;
}

}  // namespace

NumaTopology NumaTopology::Read(const NumaSource& source) {
  absl::StatusOr<NumaTopology> read = ReadNodes(source);
  std::error_code error;
  if (!read.ok() && fs::exists(source.system / "node" / "online", error)) {
    spdlog::warn("NUMA nodes: {}; the machine is taken for one node",
                 std::string(read.status().message()));
  }
  NumaTopology topology = read.ok() ? *std::move(read) : OneNode(source);
  for (Cpu& cpu : topology.cpus) cpu.sibling = SiblingNumber(source, cpu.id);
  return topology;
}

int32_t NumaTopology::CpusOf(int32_t node) const {
  return static_cast<int32_t>(std::ranges::count(cpus, node, &Cpu::node));
}

std::optional<std::vector<int32_t>> ParseIdList(std::string_view text,
                                                int32_t limit) {
  std::vector<int32_t> ids;
  const absl::string_view list = absl::StripTrailingAsciiWhitespace(Absl(text));
  if (list.empty()) return ids;
  const auto parse = [](absl::string_view digits, int32_t& id) {
    return !digits.empty() &&
           std::ranges::all_of(digits, absl::ascii_isdigit) &&
           absl::SimpleAtoi(digits, &id);
  };
  for (const absl::string_view part : absl::StrSplit(list, ',')) {
    const std::pair<absl::string_view, absl::string_view> range =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    const bool single = part.find('-') == absl::string_view::npos;
    int32_t first = 0;
    int32_t last = 0;
    if (!parse(range.first, first) ||
        !parse(single ? range.first : range.second, last) || last < first ||
        last >= limit || (!ids.empty() && first <= ids.back())) {
      return std::nullopt;
    }
    for (int32_t id = first; id <= last; ++id) ids.push_back(id);
  }
  return ids;
}

std::string FormatIdList(std::vector<int32_t> ids) {
  std::ranges::sort(ids);
  std::vector<std::string> parts;
  for (size_t i = 0; i < ids.size();) {
    size_t end = i + 1;
    while (end < ids.size() && ids[end] == ids[end - 1] + 1) ++end;
    parts.push_back(end == i + 1 ? absl::StrCat(ids[i])
                                 : absl::StrCat(ids[i], "-", ids[end - 1]));
    i = end;
  }
  return absl::StrJoin(parts, ",");
}

}  // namespace bullpen
