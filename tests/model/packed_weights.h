#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/model/packed_model.h"
#include "tests/fakes/checkpoint_writer.h"

namespace bullpen {

// A model directory of these tensors and that config, at `dir`.
void WriteModel(const std::filesystem::path& dir,
                const std::vector<FakeTensor>& tensors,
                const nlohmann::json& config);

// Packs `source` to `target`, which goes first, and opens it. Fails the test
// if either does not succeed.
PackedModel PackAndOpen(const std::filesystem::path& source,
                        const std::filesystem::path& target);

// The rows of a panel matrix, row-major, by the layout's definition. EXPECTs
// that the missing rows of the last panel are zero.
std::string RowsOf(const kernels::PanelMatrix& matrix);

// Bytes of one expert's gate, up and down, row-major. EXPECTs the checksum and
// that padding is zero.
struct ExpertRows3 {
  std::string gate;
  std::string up;
  std::string down;
};
ExpertRows3 ReadExpert(const PackedModel& model, int layer, int expert);

// EXPECTs that every tensor of the per-expert checkpoint `source` stands in
// `model` with the same bits.
void ExpectSameWeights(const std::vector<FakeTensor>& source,
                       const PackedModel& model);

}  // namespace bullpen
