#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace bullpen {

// What a BPE model is made of. What may merge is listed pair by pair, as in
// tokenizer.json, or follows from the pieces that may be formed and their
// scores, as in SentencePiece.
struct BpeParts {
  struct Piece {
    size_t entry = 0;  // of vocabulary
    float score = 0;   // the highest merges first
  };
  std::vector<std::pair<std::string, int32_t>> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::vector<Piece> pieces;  // empty: the merges count
  std::optional<std::string> unknown_token;
  bool byte_level = false;  // the vocabulary is spelled in ByteAlphabet
  bool byte_fallback = false;
  bool fuse_unknown = false;
  bool ignore_merges = false;
};

// Byte-pair encoding of one word: the pair of lowest rank merges first, the
// leftmost of equals. Immutable: any thread may use it.
class BpeModel {
 public:
  // InvalidArgument: an id twice, a merge of or into an unknown token, an
  // unknown_token that is not in the vocabulary, a score that is no number, a
  // piece of more than 1,024 bytes.
  static absl::StatusOr<BpeModel> Create(const BpeParts& parts);

  // Appends the ids of `word`, in O(n log n). What the vocabulary cannot spell
  // becomes byte tokens, the unknown token, or nothing.
  void Encode(std::string_view word, std::vector<int32_t>& ids) const;

  std::optional<int32_t> IdOf(std::string_view token) const;

  // How many bytes at the start of `word` may be encoded apart from the rest
  // with the same result: up to the first U+2581 after another character where
  // no token has one in its middle, else all of them.
  size_t IndependentPrefix(std::string_view word) const;

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t id = 0;
  };
  struct Symbol {
    int32_t id = 0;
    int32_t previous = -1;
    int32_t next = -1;
  };

  BpeModel() = default;
  absl::Status AddMerges(const BpeParts& parts);
  absl::Status AddScoredMerges(const BpeParts& parts);
  void NoteToken(std::string_view token);
  const Merge* FindMerge(int32_t left, int32_t right) const;
  void AppendSymbols(std::string_view word, std::vector<int32_t>& ids) const;
  void MergeShort(std::vector<int32_t>& ids, size_t begin) const;
  void MergeLong(std::vector<int32_t>& ids, size_t begin) const;

  absl::flat_hash_map<std::string, int32_t> ids_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // by left id << 32 | right id
  std::array<int32_t, 256> byte_ids_;            // -1: the byte has no token
  std::optional<int32_t> unknown_id_;
  bool byte_level_ = false;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  bool cuts_at_spaces_ = true;
};

}  // namespace bullpen
