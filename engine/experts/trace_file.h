#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "engine/experts/trace.h"

// The binary form of a routing trace, about a fifth of the CSV. All numbers are
// little endian. A file is a header and blocks:
//   "BPTRACE1"  u32 layers  u32 experts  i64 expert_bytes[layers]  u64 XXH3 of
//   what comes before
//   block: u32 bytes  u64 XXH3 of the records  records
//   record: u32 turn  u32 step  u16 layer  u8 phase (0 prefill, 1 decode)
//   u8 k  u16 experts[k]  f32 weights[k]
// With the ids of tokens it begins with "BPTRACE2", and records end with
//   u32 token
namespace bullpen {

// The trace in either form, told by its first bytes. InvalidArgument names the
// place and what is wrong; a file that was cut off in the middle is refused.
absl::StatusOr<RoutingTrace> ParseTrace(std::string_view bytes);
// The same from a file of at most 4 GiB.
absl::StatusOr<RoutingTrace> ReadTrace(const std::filesystem::path& path);

// Writes a trace as it comes. One thread.
class TraceWriter {
 public:
  struct Contents {
    int32_t experts = 0;
    std::span<const int64_t> expert_bytes;  // by layer
    bool token_ids = false;  // else they are not written, whoever has them
  };
  // AlreadyExists if there is such a file.
  static absl::StatusOr<TraceWriter> Create(const std::filesystem::path& path,
                                            const Contents& contents);

  // Appends in memory, and to the file once a block is full. After an error of
  // the file nothing more is kept; Close tells.
  void Add(const RoutingTrace::Choice& choice, std::span<const int32_t> experts,
           std::span<const float> weights);
  // Writes what is left. The first error, if there was one.
  absl::Status Close();

  int64_t bytes_written() const { return file_.size(); }

 private:
  TraceWriter(File file, bool token_ids)
      : file_(std::move(file)), token_ids_(token_ids) {}
  void WriteBlock();

  File file_;
  bool token_ids_;
  std::string block_;
  absl::Status status_;
};

}  // namespace bullpen
