#include "tools/logits_command.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <system_error>
#include <vector>

#include "base/metrics.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/safetensors.h"
#include "tools/load_model.h"

namespace bullpen {
namespace {

constexpr int64_t kAlignment = 64;

// What the tap of one layer has given so far, chunk after chunk.
struct LayerRecord {
  std::vector<float> hidden;     // [tokens, dim]
  std::vector<int32_t> experts;  // [tokens, k]
  std::vector<float> weights;    // [tokens, k]
};

template <typename T>
void Extend(std::vector<T>& to, std::span<const T> from) {
  to.insert(to.end(), from.begin(), from.end());
}

std::vector<SafetensorsWriter::Tensor> Tensors(const ModelConfig& config,
                                               int64_t tokens, bool all) {
  std::vector<SafetensorsWriter::Tensor> tensors = {
      {"logits", "F32", {tokens, config.vocab}}};
  if (!all) return tensors;
  for (size_t layer = 0; layer < config.layers.size(); ++layer) {
    tensors.push_back(
        {absl::StrCat("hidden.", layer), "F32", {tokens, config.dim}});
    if (!config.layers[layer].moe) continue;
    const int64_t k = config.experts_per_token;
    tensors.push_back({absl::StrCat("experts.", layer), "I32", {tokens, k}});
    tensors.push_back(
        {absl::StrCat("expert_weights.", layer), "F32", {tokens, k}});
  }
  return tensors;
}

// Runs the prompt in chunks that fit a step; logits go to the file at once.
absl::Status WriteLogits(Model& model, std::span<const int32_t> ids,
                         SafetensorsWriter& writer) {
  const std::vector<KvTable> tables =
      FixedKvTables(model.kv_groups(), model.kv_limits(), 0);
  const size_t step = static_cast<size_t>(model.max_batch_tokens());
  for (size_t first = 0; first < ids.size(); first += step) {
    const std::span<const int32_t> chunk =
        ids.subspan(first, std::min(step, ids.size() - first));
    std::vector<int32_t> rows(chunk.size());
    std::iota(rows.begin(), rows.end(), 0);
    const SequenceRows sequence{.tables = tables,
                                .rows = static_cast<int32_t>(chunk.size()),
                                .first_position = static_cast<int32_t>(first),
                                .prompt = static_cast<int32_t>(ids.size())};
    ASSIGN_OR_RETURN(const ForwardResult result,
                     model.Forward({.ids = chunk,
                                    .sequences = {&sequence, 1},
                                    .logit_rows = rows,
                                    .phase = Phase::kPrefill}));
    RETURN_IF_ERROR(result.sequence_status[0]);
    RETURN_IF_ERROR(writer.Append(std::as_bytes(result.logits)));
  }
  return absl::OkStatus();
}

absl::Status WriteLayers(const ModelConfig& config,
                         std::span<const LayerRecord> layers,
                         SafetensorsWriter& writer) {
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerRecord& layer = layers[i];
    RETURN_IF_ERROR(writer.Append(std::as_bytes(std::span(layer.hidden))));
    if (!config.layers[i].moe) continue;
    RETURN_IF_ERROR(writer.Append(std::as_bytes(std::span(layer.experts))));
    RETURN_IF_ERROR(writer.Append(std::as_bytes(std::span(layer.weights))));
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(std::span<const int32_t> ids, const Model& model) {
  const int32_t vocab = model.config().vocab;
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocab) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--ids: ", id, " is not in the vocabulary of ", vocab));
  }
  if (static_cast<int64_t>(ids.size()) <= model.context()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--ids has ", ids.size(), " tokens, the context only ", model.context()));
}

}  // namespace

LogitsCommand::LogitsCommand(CLI::App& app, const Environment& environment,
                             Command& chosen)
    : model_(environment.default_model) {
  flags_.cache_dir = environment.cache_dir;
  flags_.max_sequences = 1;
  CLI::App* command = app.add_subcommand(
      "logits", "Write the logits of a prompt to a safetensors file");
  command->add_option("MODEL", model_, "model directory")
      ->capture_default_str();
  command->add_option("--ids", ids_, "the prompt as token ids: 1,2,3")
      ->required();
  command->add_option("--out", out_, "the safetensors file to write")
      ->required();
  command->add_flag("--all", all_,
                    "also hidden.N after each layer, and experts.N and "
                    "expert_weights.N of each layer with experts");
  AddFlags(*command, flags_, kModelFlagsGroup);
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status LogitsCommand::Run() const {
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ParseIds(ids_));
  Metrics metrics;
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> model,
                   LoadModel(model_, flags_, metrics));
  RETURN_IF_ERROR(CheckPrompt(ids, *model));
  const ModelConfig& config = model->config();
  std::vector<LayerRecord> layers(all_ ? config.layers.size() : 0);
  if (all_) {
    model->set_tap({
        .hidden =
            [&layers](int layer, std::span<const float> hidden) {
              Extend(layers[layer].hidden, hidden);
            },
        .routing =
            [&layers](int layer, std::span<const int32_t> experts,
                      std::span<const float> weights) {
              Extend(layers[layer].experts, experts);
              Extend(layers[layer].weights, weights);
            },
    });
  }
  // Under another name until it is complete; what a killed run left goes first.
  const std::filesystem::path part = out_.string() + ".part";
  std::error_code error;
  std::filesystem::remove(part, error);
  ASSIGN_OR_RETURN(
      SafetensorsWriter writer,
      SafetensorsWriter::Create(
          part, Tensors(config, static_cast<int64_t>(ids.size()), all_),
          kAlignment));
  RETURN_IF_ERROR(WriteLogits(*model, ids, writer));
  RETURN_IF_ERROR(WriteLayers(config, layers, writer));
  RETURN_IF_ERROR(writer.Finish());
  std::filesystem::rename(part, out_, error);
  if (!error) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("cannot write ", out_.string(), ": ", error.message()));
}

}  // namespace bullpen
