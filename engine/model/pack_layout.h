#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "engine/model/families.h"
#include "engine/model/packed_model.h"
#include "kernels/types.h"

namespace bullpen {

// The files of a packed model. Weight files are valid safetensors files, of
// one U8 tensor per resident tensor or expert, padded to the alignments below
// (safetensors allows no holes); the JSON header is padded with spaces.
inline constexpr int32_t kPackFormatVersion = 1;
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kResidentFile[] = "resident.safetensors";
inline constexpr char kExpertsFile[] = "experts.safetensors";
inline constexpr int64_t kBlobAlignment = 4096;
inline constexpr int64_t kResidentAlignment = 64;

// Where a part of a resident tensor comes from.
struct ResidentPart {
  std::string_view TensorNames::* source = nullptr;
  int32_t rows = 0;  // of a matrix; elements of a vector
};

// How a resident tensor is made of its parts.
enum class ResidentKind : uint8_t {
  kVector,  // side by side
  kMatrix,  // stacked
  // Each head's rows of kv_b for keys, transposed, or those for values.
  kKeyUp,
  kValueUp
};

// A tensor of resident.safetensors; the names are those of PackedModel.
struct ResidentShape {
  ResidentKind kind = ResidentKind::kMatrix;
  int32_t layer = 0;
  std::string name;
  int32_t rows = 1;
  int32_t cols = 0;
  std::vector<ResidentPart> parts;
  int32_t heads = 1;  // matrices of that shape, one behind the other
  bool shared_expert = false;

  bool panels() const { return kind != ResidentKind::kVector; }

  // Of the packed tensor, padded. Vectors are F32 whatever `dtype` says.
  int64_t bytes(kernels::DType dtype) const;
};

// Every resident tensor that a model of this config has, in file order.
std::vector<ResidentShape> ResidentShapes(const ModelConfig& config);

kernels::ExpertShape ExpertShapeOf(const ModelConfig& config, int layer,
                                   kernels::DType dtype, kernels::DType down);
int64_t BlobBytes(const kernels::ExpertShape& shape);
std::string ExpertName(int layer, int expert);

// manifest.json: what the headers of the weight files do not say.
struct Manifest {
  struct Layer {
    kernels::DType dtype = kernels::DType::kF32;  // of gate and up
    kernels::DType down = kernels::DType::kF32;
    std::vector<uint64_t> checksums;  // XXH3_64bits of each blob
  };
  std::string source_key;          // Checkpoint::ContentKey
  uint64_t resident_checksum = 0;  // XXH3_64bits of the data section
  std::map<std::string, kernels::DType> resident;
  std::vector<Layer> layers;

  std::string ToJson() const;
  // NotFound: no manifest. FailedPrecondition: another format version or
  // kernel layout. DataLoss names the field.
  static absl::StatusOr<Manifest> Read(const std::filesystem::path& dir);
};

}  // namespace bullpen
