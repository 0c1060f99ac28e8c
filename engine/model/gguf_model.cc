#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "engine/model/checkpoint_parts.h"
#include "engine/model/config_fields.h"
#include "engine/model/gguf.h"
#include "engine/model/gguf_architectures.h"
#include "engine/model/gguf_fields.h"
#include "engine/model/gguf_neutral.h"
#include "engine/model/gguf_vocabulary.h"

namespace bullpen {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The one value of a key that may be an array of one for each layer.
int64_t Uniform(GgufFields& fields, const std::string& key) {
  const std::vector<int64_t> values = fields.Ints(key);
  if (values.empty()) return fields.Int(key);
  if (std::any_of(values.begin(), values.end(),
                  [&](int64_t value) { return value != values[0]; })) {
    fields.Refuse(key, "one value for all layers is");
  }
  return values[0];
}

// What only YaRN has. Converters copy beta_fast, beta_slow and
// attention_factor, which stands for all growth of attention, from the config.
// What llama.cpp takes for not given is -1 of yarn_ext_factor, else 1 with YaRN
// and 0 without.
void MapYarn(GgufMapping& m, const std::string& type, json& scaling) {
  const bool yarn = type == "yarn";
  const auto key = [&](const char* name) {
    return m.Key(absl::StrCat("rope.scaling.yarn_", name));
  };
  m.fields.RequireOneOf(key("ext_factor"), {{-1.0, yarn ? 1.0 : 0.0}});
  if (!yarn) {
    m.fields.RequireOneOf(key("attn_factor"), {{1.0}});
    return;
  }
  for (const auto& [name, field] :
       {std::pair("beta_fast", "beta_fast"),
        std::pair("beta_slow", "beta_slow"),
        std::pair("attn_factor", "attention_factor")}) {
    if (m.fields.Has(key(name))) scaling[field] = m.fields.Number(key(name), 0);
  }
  if (m.fields.Has(key("log_multiplier"))) {
    // A tenth of mscale_all_dim, by the converter's custom.
    const double mscale = 10 * m.fields.Number(key("log_multiplier"), 0);
    scaling["mscale"] = mscale;
    scaling["mscale_all_dim"] = mscale;
  }
}

// As llama.cpp does, a factor alone is linear, the oldest files' too, and 0 is
// none.
void MapRopeScaling(GgufMapping& m) {
  const std::string own = m.Key("rope.scaling.factor");
  const std::string old = m.Key("rope.scale_linear");
  double factor = m.fields.Number(m.fields.Has(own) ? own : old, 1);
  if (factor == 0) factor = 1;
  const std::string type = m.fields.String(m.Key("rope.scaling.type"),
                                           factor == 1 ? "none" : "linear");
  json scaling = {{"rope_type", type}, {"factor", factor}};
  MapYarn(m, type, scaling);
  if (type == "none") return;
  if (type != "linear" && type != "yarn") {
    m.fields.Refuse(m.Key("rope.scaling.type"), "none, linear and yarn are");
    return;
  }
  const std::string original = m.Key("rope.scaling.original_context_length");
  if (m.fields.Has(original)) {
    scaling["original_max_position_embeddings"] = m.fields.Int(original);
  }
  m.config["rope_scaling"] = std::move(scaling);
}

// The vocabulary's size: the metadata need not have it, the embedding does.
int64_t VocabularySize(GgufMapping& m) {
  const auto embed = m.tensors.find("token_embd.weight");
  if (embed != m.tensors.end() && embed->second.info.shape.size() == 2) {
    return embed->second.info.shape[0];
  }
  return m.fields.Int(m.Key("vocab_size"));
}

// Heads that all families have but those of latent attention.
void MapHeads(GgufMapping& m) {
  const int64_t heads = m.config["num_attention_heads"].get<int64_t>();
  const int64_t dim = m.config["hidden_size"].get<int64_t>();
  const int64_t head_dim =
      m.fields.Int(m.Key("attention.key_length"), heads > 0 ? dim / heads : 0);
  const std::string kv_heads = m.Key("attention.head_count_kv");
  m.config["num_key_value_heads"] =
      m.fields.Has(kv_heads) ? Uniform(m.fields, kv_heads) : heads;
  m.config["head_dim"] = head_dim;
  const int64_t rotary = m.fields.Int(m.Key("rope.dimension_count"), head_dim);
  if (rotary != head_dim && head_dim > 0) {
    double share = static_cast<double>(rotary) / static_cast<double>(head_dim);
    // The share of a head is cut to a whole number, and 46 * (26 / 46.) is not
    // quite 26.
    if (static_cast<double>(head_dim) * share < static_cast<double>(rotary)) {
      share = std::nextafter(share, 1);
    }
    m.config["partial_rotary_factor"] = share;
  }
  const std::string value_dim = m.Key("attention.value_length");
  if (m.fields.Int(value_dim, head_dim) != head_dim) {
    m.fields.Refuse(value_dim, "that of key_length is");
  }
}

// The keys of config.json that all families share.
void MapCommon(GgufMapping& m) {
  m.config["vocab_size"] = VocabularySize(m);
  m.config["hidden_size"] = m.fields.Int(m.Key("embedding_length"));
  m.config["num_hidden_layers"] =
      m.fields.Int(m.Key("block_count")) -
      m.fields.Int(m.Key("nextn_predict_layers"), 0);
  m.config["num_attention_heads"] =
      Uniform(m.fields, m.Key("attention.head_count"));
  m.config["max_position_embeddings"] = m.fields.Int(m.Key("context_length"));
  m.config["rms_norm_eps"] =
      m.fields.Number(m.Key("attention.layer_norm_rms_epsilon"), 1e-6);
  m.config["rope_theta"] = m.fields.Number(m.Key("rope.freq_base"), 10000);
  m.config["tie_word_embeddings"] = !m.HasTensor("output.weight");
  m.config["hidden_act"] = "silu";
  if (m.fields.Has(m.Key("feed_forward_length"))) {
    m.config["intermediate_size"] =
        Uniform(m.fields, m.Key("feed_forward_length"));
  }
  if (!m.fields.Has(m.Key("attention.kv_lora_rank"))) MapHeads(m);
  MapRopeScaling(m);
}

// Ends of a text, as generation_config.json has them.
json Generation(GgufFields& fields) {
  json generation = json::object();
  json ends = json::array();
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id"}) {
    const std::optional<int64_t> id = fields.OptionalInt(key);
    if (!id.has_value()) continue;
    if (std::find(ends.begin(), ends.end(), *id) == ends.end()) {
      ends.push_back(*id);
    }
  }
  if (!ends.empty()) generation["eos_token_id"] = std::move(ends);
  if (const auto bos = fields.OptionalInt("tokenizer.ggml.bos_token_id")) {
    generation["bos_token_id"] = *bos;
  }
  return generation;
}

GgufVocabulary Vocabulary(GgufFields& fields) {
  const auto key = [](const char* name) {
    return absl::StrCat("tokenizer.ggml.", name);
  };
  GgufVocabulary vocabulary;
  vocabulary.model = fields.String(key("model"));
  vocabulary.pre = fields.String(key("pre"), "");
  vocabulary.tokens = fields.Strings(key("tokens"));
  vocabulary.merges = fields.Strings(key("merges"));
  for (const double score : fields.Numbers(key("scores"))) {
    vocabulary.scores.push_back(static_cast<float>(score));
  }
  for (const int64_t type : fields.Ints(key("token_type"))) {
    vocabulary.types.push_back(static_cast<int32_t>(type));
  }
  vocabulary.bos = fields.OptionalInt(key("bos_token_id"));
  vocabulary.eos = fields.OptionalInt(key("eos_token_id"));
  vocabulary.unknown = fields.OptionalInt(key("unknown_token_id"));
  vocabulary.padding = fields.OptionalInt(key("padding_token_id"));
  vocabulary.add_bos = fields.OptionalBool(key("add_bos_token"));
  vocabulary.add_eos = fields.OptionalBool(key("add_eos_token"));
  vocabulary.add_space_prefix = fields.OptionalBool(key("add_space_prefix"));
  vocabulary.remove_extra_whitespaces =
      fields.OptionalBool(key("remove_extra_whitespaces"));
  vocabulary.chat_template = fields.String("tokenizer.chat_template", "");
  return vocabulary;
}

// The tokenizer's files, if the model has one.
absl::Status AddTokenizer(GgufFields& fields, CheckpointParts& parts) {
  const std::string kind = fields.String("tokenizer.ggml.model", "none");
  if (kind == "none") return fields.status();
  const GgufVocabulary vocabulary = Vocabulary(fields);
  RETURN_IF_ERROR(fields.status());
  absl::StatusOr<std::vector<DescriptionFile>> files =
      GgufTokenizerFiles(vocabulary);
  if (!files.ok()) {
    return absl::Status(
        files.status().code(),
        absl::StrCat(parts.path.string(), ": ", files.status().message()));
  }
  for (DescriptionFile& file : *files) {
    parts.descriptions[file.name] = std::move(file.bytes);
  }
  return absl::OkStatus();
}

// What each frequency is divided by, where the file says so: converters turn
// the stretch of Llama 3 into that. The tensor is no weight of the model.
absl::Status AddRopeDivisors(CheckpointParts& parts) {
  constexpr char kName[] = "rope_freqs.weight";
  const auto found = parts.tensors.find(kName);
  if (found == parts.tensors.end()) return absl::OkStatus();
  const TensorInfo& info = found->second.info;
  const auto refuse = [&](const std::string& what) {
    return absl::InvalidArgumentError(
        absl::StrCat(parts.path.string(), ": tensor ", kName, " ", what));
  };
  if (parts.config.contains("rope_scaling")) {
    return refuse("and rope.scaling together are not supported");
  }
  constexpr int64_t kMostDivisors = 1 << 13;
  if (info.dtype != "F32" || info.shape.size() != 1 ||
      info.shape[0] > kMostDivisors) {
    return refuse(absl::StrCat("is ", info.dtype, " ", info.ShapeText(),
                               ", not F32 of half a head"));
  }
  std::vector<float> divisors(static_cast<size_t>(info.shape[0]));
  RETURN_IF_ERROR(parts.files[found->second.file].file.ReadAt(
      info.offset, std::as_writable_bytes(std::span(divisors))));
  for (const float divisor : divisors) {
    if (divisor > 0 && std::isfinite(divisor)) continue;
    return refuse(absl::StrCat("has ", divisor, "; divisors are positive"));
  }
  parts.config["rope_scaling"] = {{"rope_type", "longrope"},
                                  {"short_factor", divisors},
                                  {"long_factor", divisors},
                                  {"attention_factor", 1.0},
                                  {"original_max_position_embeddings",
                                   parts.config["max_position_embeddings"]}};
  parts.tensors.erase(found);
  return absl::OkStatus();
}

// Marks the matrices whose rows a converter has moved, and their biases: pairs
// of rows within each head.
absl::Status MarkInterleaved(const GgufArchitecture& architecture,
                             CheckpointParts& parts) {
  if (!architecture.interleaved_qk) return absl::OkStatus();
  const int64_t head = parts.config["head_dim"].get<int64_t>();
  for (auto& [name, tensor] : parts.tensors) {
    if (!name.ends_with(".attn_q.weight") &&
        !name.ends_with(".attn_k.weight") && !name.ends_with(".attn_q.bias") &&
        !name.ends_with(".attn_k.bias")) {
      continue;
    }
    const int64_t rows = tensor.info.shape.front();
    if (head < 2 || head % 2 != 0 || head > rows || rows % head != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          parts.path.string(), ": tensor ", Printable(name), " has ", rows,
          " rows, which are no whole heads of ", head, " (an even number)"));
    }
    tensor.interleaved_rows = static_cast<int32_t>(head);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CheckpointParts> ReadGgufModel(const fs::path& path) {
  ASSIGN_OR_RETURN(std::vector<GgufFile> files, OpenGgufSplit(path));
  const GgufMetadata metadata = files.front().metadata();
  CheckpointParts parts;
  parts.path = path;
  for (GgufFile& file : files) {
    std::map<std::string, TensorInfo> tensors = file.tensors();
    const uint64_t checksum = file.header_checksum();
    RETURN_IF_ERROR(parts.AddFile({std::move(file).TakeFile(), checksum},
                                  std::move(tensors)));
  }
  GgufFields fields(metadata, path.string());
  const std::string name = fields.String("general.architecture");
  RETURN_IF_ERROR(fields.status());
  absl::StatusOr<const GgufArchitecture*> architecture =
      FindGgufArchitecture(name);
  if (!architecture.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": ", architecture.status().message()));
  }
  parts.names = (*architecture)->names;
  parts.config = json::object();
  GgufMapping mapping{.fields = fields,
                      .prefix = name + ".",
                      .tensors = parts.tensors,
                      .config = parts.config};
  MapCommon(mapping);
  (*architecture)->map(mapping);
  RefuseUnreadKeys(mapping);
  parts.generation = Generation(fields);
  RETURN_IF_ERROR(fields.status());
  RETURN_IF_ERROR(AddRopeDivisors(parts));
  RETURN_IF_ERROR(MarkInterleaved(**architecture, parts));
  RETURN_IF_ERROR(AddTokenizer(fields, parts));
  parts.descriptions["config.json"] = parts.config.dump(2) + "\n";
  parts.descriptions["generation_config.json"] =
      parts.generation.dump(2) + "\n";
  return parts;
}

}  // namespace bullpen
