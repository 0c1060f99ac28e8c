#include "engine/model/gguf_patterns.h"

#include <string>

#include "base/strings.h"

namespace bullpen {
namespace {

constexpr std::string_view kGpt2Split =
    R"re('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)re"
    R"re(|\s+(?!\S)|\s+)re";
constexpr std::string_view kGpt2[] = {kGpt2Split};
constexpr std::string_view kDefault[] = {R"re([\p{P}$+<=>^~|]+)re", kGpt2Split,
                                         R"re(\p{N}+)re",
                                         R"re([0-9][0-9][0-9])re"};
constexpr std::string_view kSingleDigits[] = {R"re(\p{N})re", kGpt2Split};
constexpr std::string_view kFalcon[] = {R"re([\p{P}$+<=>^~|`]+)re", kGpt2Split,
                                        R"re([0-9][0-9][0-9])re"};
constexpr std::string_view kQwen2[] = {
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)re"
    R"re( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"};
constexpr std::string_view kQwen35[] = {
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+)re"
    R"re(|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"};
constexpr std::string_view kLlama3[] = {
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)re"
    R"re( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"};
constexpr std::string_view kO200k[] = {
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)re"
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+)re"
    R"re([\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|)re"
    R"re( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"};
constexpr std::string_view kTekken[] = {
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)re"
    R"re(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)re"
    R"re(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"};
constexpr std::string_view kDeepseekV3[] = {
    R"re(\p{N}{1,3})re", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?)re"
    R"re([\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"};
// The long list of letters in the model's own file is that of cased letters.
constexpr std::string_view kDeepseekLlm[] = {
    R"re([\r\n])re",
    R"re(\s?[\p{Lu}\p{Ll}\p{Lt}]+)re",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    R"re(\s+$)re",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    R"re(\p{N}+)re"};
constexpr std::string_view kDeepseekCoder[] = {
    R"re([\r\n])re", R"re(\s?\p{L}+)re", R"re(\s?\p{P}+)re",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", R"re(\p{N})re"};
constexpr std::string_view kBailing[] = {
    R"re('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+)re"
    R"re(+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)re"};
constexpr std::string_view kSeedCoder[] = {
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}|)re"
    R"re( ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)re"};

struct Entry {
  std::string_view name;
  GgufPatterns patterns;
};

constexpr Entry kEntries[] = {
    {"default", {.splits = kDefault}},
    {"llama-bpe", {.splits = kLlama3, .ignore_merges = true, .add_bos = true}},
    {"llama3", {.splits = kLlama3, .ignore_merges = true, .add_bos = true}},
    {"llama-v3", {.splits = kLlama3, .ignore_merges = true, .add_bos = true}},
    {"falcon3", {.splits = kLlama3, .ignore_merges = true, .add_bos = true}},
    {"pixtral", {.splits = kLlama3, .ignore_merges = true, .add_bos = true}},
    {"lfm2", {.splits = kLlama3, .ignore_merges = true, .add_bos = true}},
    {"tekken", {.splits = kTekken, .ignore_merges = true, .add_bos = true}},
    {"dbrx", {.splits = kLlama3}},
    {"smaug-bpe", {.splits = kLlama3}},
    {"glm4", {.splits = kLlama3, .ignore_merges = true}},
    {"chatglm-bpe", {.splits = kLlama3}},
    {"qwen2", {.splits = kQwen2, .nfc = true}},
    {"deepseek-r1-qwen", {.splits = kQwen2, .nfc = true}},
    {"megrez", {.splits = kQwen2, .nfc = true}},
    {"stablelm2", {.splits = kQwen2}},
    {"hunyuan", {.splits = kQwen2}},
    {"grok-2", {.splits = kQwen2}},
    {"qwen35", {.splits = kQwen35, .nfc = true}},
    {"gpt-4o", {.splits = kO200k}},
    {"llama4", {.splits = kO200k}},
    {"minimax-m2", {.splits = kO200k}},
    {"deepseek-v3", {.splits = kDeepseekV3}},
    {"hunyuan-dense", {.splits = kDeepseekV3}},
    {"deepseek-llm", {.splits = kDeepseekLlm}},
    {"deepseek-coder", {.splits = kDeepseekCoder}},
    {"bailingmoe", {.splits = kBailing}},
    {"bailingmoe2", {.splits = kBailing}},
    {"seed-coder", {.splits = kSeedCoder}},
    {"gpt-2", {.splits = kGpt2}},
    {"phi-2", {.splits = kGpt2}},
    {"olmo", {.splits = kGpt2, .nfc = true}},
    {"mpt", {.splits = kGpt2}},
    {"jais", {.splits = kGpt2}},
    {"exaone4", {.splits = kGpt2}},
    {"starcoder", {.splits = kSingleDigits}},
    {"refact", {.splits = kSingleDigits}},
    {"command-r", {.splits = kSingleDigits}},
    {"smollm", {.splits = kSingleDigits}},
    {"codeshell", {.splits = kSingleDigits}},
    {"exaone", {.splits = kSingleDigits}},
    {"falcon", {.splits = kFalcon}},
};

}  // namespace

absl::StatusOr<GgufPatterns> FindGgufPatterns(std::string_view pre) {
  // A file without the key is an old one, for which this is the rule.
  if (pre.empty()) pre = "default";
  std::string names;
  for (const Entry& entry : kEntries) {
    if (entry.name == pre) return entry.patterns;
    absl::StrAppend(&names, names.empty() ? "" : ", ", Absl(entry.name));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.ggml.pre: '", Absl(pre),
                   "' is not supported; supported are ", names));
}

}  // namespace bullpen
