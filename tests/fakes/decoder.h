#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "engine/model/model.h"

namespace bullpen {

// Packs a checkpoint once per test program; the packed directory.
std::filesystem::path PackedForTest(const std::filesystem::path& source);

// A model with its own metrics, driven without an engine: one sequence whose
// blocks are given one after another.
class Decoder {
 public:
  Decoder(const std::filesystem::path& source, const ModelOptions& options);

  // Feeds `ids` at the positions after those fed before, `chunk` rows at a
  // time; logits of every fed row, [ids, vocab]. The first of a sequence are
  // its prompt.
  std::vector<float> Feed(const std::vector<int32_t>& ids, int32_t chunk);
  void Restart() { position_ = 0; }

  Model& model() { return *model_; }

 private:
  Metrics metrics_;
  std::unique_ptr<Model> model_;
  std::vector<KvTable> tables_;
  int32_t position_ = 0;
  int32_t prompt_ = 0;  // tokens
};

// Default options but for the activations: "int8" or "f32".
ModelOptions WithActivations(const std::string& activations);

// The budget that gives every layer `slots` slots.
int64_t ExpertBytesFor(const PackedModel& model, int32_t slots);

}  // namespace bullpen
