#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "kernels/types.h"

namespace bullpen {

// Rows of one call, at most.
inline constexpr int32_t kMaxKernelRows = 4096;

// What one call reads of weights or cache, and computes (two for each
// multiply-add).
struct KernelCost {
  double bytes = 0;
  double operations = 0;
};

// How an op is called.
struct KernelSetting {
  int32_t rows = 1;
  int32_t threads = 1;
  bool int8 = false;  // block types multiply integers
};

// An op of given shape on memory that no cache holds: each call takes the next
// of many copies. One thread.
class KernelSubject {
 public:
  virtual ~KernelSubject() = default;
  virtual const std::string& op() const = 0;
  virtual const std::string& type() const = 0;
  virtual const std::string& shape() const = 0;
  // Whether its weights are of a block type, which may multiply integers.
  virtual bool has_int8() const = 0;
  // The numbers of rows (M) worth measuring, and the largest that may be asked.
  virtual std::vector<int32_t> rows() const = 0;
  virtual int32_t max_rows() const = 0;

  // Sets what the calls to come are.
  virtual absl::StatusOr<KernelCost> Prepare(const KernelSetting& setting) = 0;
  virtual absl::Status Call(const kernels::Ops& ops,
                            kernels::Stream& stream) = 0;
};

// y = x W^T, W [rows, cols].
absl::StatusOr<std::unique_ptr<KernelSubject>> NewMatMulSubject(
    kernels::DType dtype, int32_t rows, int32_t cols);

// Eight experts of M rows each; one expert where M is large.
absl::StatusOr<std::unique_ptr<KernelSubject>> NewExpertsSubject(
    kernels::DType dtype, int32_t dim, int32_t inner);

// The last M rows of a context.
struct AttentionShape {
  kernels::KvType kv_type = kernels::KvType::kF32;
  int32_t context = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t k_dim = 0;
  int32_t v_dim = 0;
};
absl::StatusOr<std::unique_ptr<KernelSubject>> NewAttentionSubject(
    const AttentionShape& shape);

// What `bullpen bench kernels` measures, in order. Each is made when its turn
// comes, because each fills half a gigabyte.
struct KernelSubjectMaker {
  std::string name;  // op/type/shape
  std::function<absl::StatusOr<std::unique_ptr<KernelSubject>>()> make;
};
std::vector<KernelSubjectMaker> KernelSubjects();

}  // namespace bullpen
