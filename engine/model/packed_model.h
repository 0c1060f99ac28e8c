#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/huge_buffer.h"
#include "engine/experts/expert.h"
#include "engine/model/config.h"
#include "kernels/grouped_ffn.h"
#include "kernels/types.h"

namespace bullpen {

// A resident tensor of a packed model: panels (matrices) or plain rows (norms,
// biases: F32).
struct ResidentTensor {
  kernels::DType dtype = kernels::DType::kF32;
  int32_t rows = 1;
  int32_t cols = 0;
  bool panels = false;
  int64_t offset = 0;  // in resident.safetensors' data, 64-byte aligned
  int64_t bytes = 0;
};

// The resident weights in memory.
class ResidentWeights {
 public:
  // Both CHECK that the tensor exists with that kind: Open has verified it.
  kernels::PanelMatrix matrix(const std::string& name) const;
  const float* vector(const std::string& name) const;
  bool contains(const std::string& name) const;
  int64_t bytes() const { return buffer_.size(); }

 private:
  friend class PackedModel;
  HugeBuffer buffer_;
  std::map<std::string, ResidentTensor> tensors_;
};

// A directory that `bullpen pack` wrote: the source's config and tokenizer
// files, manifest.json (format version, layout, source key, checksums),
// resident.safetensors and experts.safetensors. Canonical tensor names:
//   embed, head (absent if tied), final_norm,
//   layers.N.{attn_norm, qkv, qkv_bias, q_norm, k_norm, o, ffn_norm, router}
// and those of switches that few families have (pack_layout.cc lists all). qkv
// stacks the rows of q, k and v. Matrices are panels in the source's type or
// the one that pack was asked for; norms and biases are F32.
class PackedModel {
 public:
  // Reads and checks every header; no weights. DataLoss / InvalidArgument /
  // NotFound / FailedPrecondition (another format version) name the file and
  // the field. All tensors that `config` needs exist in the right shape.
  static absl::StatusOr<PackedModel> Open(const std::filesystem::path& dir);

  const std::filesystem::path& dir() const { return dir_; }
  const ModelConfig& config() const { return config_; }
  const GenerationDefaults& generation() const { return generation_; }
  const ExpertCatalog& catalog() const { return catalog_; }
  // Shape of layer l's experts.
  const kernels::ExpertShape& expert_shape(int layer) const {
    return shapes_[layer];
  }
  int64_t resident_bytes() const { return resident_bytes_; }
  // Whether any weights are of a block type.
  bool has_block_types() const;
  // The resident tensors by name.
  const std::map<std::string, ResidentTensor>& tensors() const {
    return tensors_;
  }

  // Reads resident.safetensors into memory and verifies its checksum.
  absl::StatusOr<ResidentWeights> LoadResident(
      std::span<const int32_t> memory_nodes = {}) const;

 private:
  std::filesystem::path dir_;
  ModelConfig config_;
  GenerationDefaults generation_;
  ExpertCatalog catalog_;
  std::vector<kernels::ExpertShape> shapes_;
  std::map<std::string, ResidentTensor> tensors_;
  int64_t resident_bytes_ = 0;
  int64_t resident_data_offset_ = 0;
  uint64_t resident_checksum_ = 0;
};

}  // namespace bullpen
