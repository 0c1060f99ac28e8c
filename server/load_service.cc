#include "server/load_service.h"

#include <optional>
#include <thread>
#include <utility>

#include "base/status.h"
#include "engine/model/model.h"
#include "tools/load_model.h"

namespace bullpen {
namespace {

std::string ServedName(const LoadOptions& options) {
  if (!options.name.empty()) return options.name;
  const std::filesystem::path path =
      std::filesystem::absolute(options.model).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

ModelFacts Facts(const Model& model, std::string id) {
  const ModelConfig& config = model.config();
  return {.id = std::move(id),
          .architecture = config.model_type,
          .layers = static_cast<int32_t>(config.layers.size()),
          .experts = config.experts,
          .experts_per_token = config.experts_per_token,
          .vocab = config.vocab,
          .context = model.context(),
          .generation = model.packed().generation()};
}

}  // namespace

absl::StatusOr<LoadedModel> LoadForServing(const LoadOptions& options,
                                           Metrics& metrics) {
  ASSIGN_OR_RETURN(const ModelOptions model_options,
                   ToModelOptions(options.flags));
  ASSIGN_OR_RETURN(const std::filesystem::path dir,
                   FindPacked(options.model, options.flags.cache_dir));

  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer;
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat;
  std::optional<std::jthread> texts(std::in_place, [&] {
    tokenizer = Tokenizer::FromDirectory(dir);
    chat = ChatTemplate::FromDirectory(dir, {.python = options.python});
  });
  ASSIGN_OR_RETURN(PackedModel packed, PackedModel::Open(dir));
  ASSIGN_OR_RETURN(std::unique_ptr<Model> model,
                   Model::Load(std::move(packed), model_options, metrics));
  texts.reset();  // Joins.

  std::unique_ptr<RoutingRecorder> recorder;
  if (!options.record_routing.empty()) {
    ASSIGN_OR_RETURN(recorder, RoutingRecorder::Create(
                                   {.path = options.record_routing,
                                    .token_ids = options.record_token_ids},
                                   model->packed()));
  }
  LoadedModel loaded;
  ASSIGN_OR_RETURN(loaded.tokenizer, std::move(tokenizer));
  ASSIGN_OR_RETURN(loaded.chat, std::move(chat));
  loaded.facts = Facts(*model, ServedName(options));
  loaded.engine = std::make_unique<Engine>(
      std::move(model),
      EngineConfig{.max_queue = options.max_queue,
                   .max_sequences = options.flags.max_sequences,
                   .max_batch_tokens = options.flags.max_batch_tokens},
      metrics);
  if (recorder != nullptr) loaded.engine->Record(std::move(recorder));
  return loaded;
}

}  // namespace bullpen
