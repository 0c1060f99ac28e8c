#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "engine/engine.h"
#include "engine/model/tokenizer.h"
#include "server/chat_template.h"
#include "server/translate.h"
#include "tools/model_flags.h"

namespace bullpen {

// Everything that one served model consists of. The engine is the last member,
// so that it ends before what its callbacks may reach.
struct LoadedModel {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat;
  ModelFacts facts;
  std::unique_ptr<Engine> engine;
};

struct LoadOptions {
  std::filesystem::path model;
  std::string name;  // empty: the directory's
  std::string python;
  ModelFlags flags;
  int32_t max_queue = 256;
  std::filesystem::path record_routing;  // a new file; empty: none
  bool record_token_ids = false;         // in it
};

// Packs the model if need be; loads tokenizer and weights side by side.
absl::StatusOr<LoadedModel> LoadForServing(const LoadOptions& options,
                                           Metrics& metrics);

}  // namespace bullpen
