#include "engine/model/bpe.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <queue>
#include <tuple>

#include "absl/container/flat_hash_set.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/byte_alphabet.h"
#include "engine/model/utf8.h"

namespace bullpen {
namespace {

// Up to here a scan for the lowest rank beats a queue.
constexpr size_t kShortWord = 24;
// Longer pieces would make finding their merges quadratic.
constexpr size_t kMaxPieceBytes = 1024;
constexpr std::string_view kMetaspace = "\u2581";
constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();

std::string ByteTokenName(int byte) {
  char name[8];
  std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
  return name;
}

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 |
         static_cast<uint32_t>(right);
}

// The first metaspace that follows another character, or npos.
size_t FindInnerMetaspace(std::string_view text) {
  size_t pos = 0;
  while (text.substr(pos).starts_with(kMetaspace)) pos += kMetaspace.size();
  return text.find(kMetaspace, pos);
}

}  // namespace

absl::StatusOr<BpeModel> BpeModel::Create(const BpeParts& parts) {
  BpeModel model;
  model.byte_level_ = parts.byte_level;
  model.byte_fallback_ = parts.byte_fallback;
  model.fuse_unknown_ = parts.fuse_unknown;
  model.ignore_merges_ = parts.ignore_merges;
  model.ids_.reserve(parts.vocabulary.size());
  absl::flat_hash_set<int32_t> seen;
  seen.reserve(parts.vocabulary.size());
  for (const auto& [token, id] : parts.vocabulary) {
    if (!seen.insert(id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.vocab: id ", id, " of '", token,
                       "' belongs to another token too"));
    }
    model.ids_[token] = id;
  }
  if (parts.unknown_token.has_value()) {
    model.unknown_id_ = model.IdOf(*parts.unknown_token);
    if (!model.unknown_id_.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.unk_token '", *parts.unknown_token,
                       "' is not in model.vocab"));
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    model.byte_ids_[byte] =
        model
            .IdOf(parts.byte_level ? ByteAlphabet::Get().Spelling({&raw, 1})
                                   : ByteTokenName(byte))
            .value_or(-1);
  }
  // A whole word in the vocabulary is taken as it is; in bytes there is no
  // U+2581; where it is unknown, it may join an unknown before it.
  model.cuts_at_spaces_ = !parts.ignore_merges && !parts.byte_level &&
                          model.IdOf(kMetaspace).has_value();
  RETURN_IF_ERROR(parts.pieces.empty() ? model.AddMerges(parts)
                                       : model.AddScoredMerges(parts));
  return model;
}

// A token that a merge may form.
void BpeModel::NoteToken(std::string_view token) {
  if (!cuts_at_spaces_) return;
  cuts_at_spaces_ = FindInnerMetaspace(token) == std::string_view::npos;
}

absl::Status BpeModel::AddMerges(const BpeParts& parts) {
  merges_.reserve(parts.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < parts.merges.size(); ++rank) {
    const auto& [left, right] = parts.merges[rank];
    joined.assign(left).append(right);
    const std::optional<int32_t> ids[] = {IdOf(left), IdOf(right),
                                          IdOf(joined)};
    const std::string_view names[] = {left, right, joined};
    for (int i = 0; i < 3; ++i) {
      if (ids[i].has_value()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("model.merges[", rank, "]: '", Absl(names[i]),
                       "' is not in model.vocab"));
    }
    NoteToken(joined);
    // The last of equal pairs counts, as in a map that is filled in order.
    merges_[PairKey(*ids[0], *ids[1])] = {static_cast<int32_t>(rank), *ids[2]};
  }
  return absl::OkStatus();
}

// Two neighbours merge if what they spell is a piece, so every way to cut a
// piece into two others is a merge, ranked by the score of the whole.
absl::Status BpeModel::AddScoredMerges(const BpeParts& parts) {
  std::vector<float> scores;
  absl::flat_hash_map<absl::string_view, int32_t> piece_ids;
  for (const BpeParts::Piece& piece : parts.pieces) {
    const auto& [text, id] = parts.vocabulary[piece.entry];
    if (std::isnan(piece.score)) {
      return absl::InvalidArgumentError(
          absl::StrCat("piece ", id, ": its score is no number"));
    }
    if (text.size() > kMaxPieceBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("piece ", id, ": ", text.size(), " bytes > ",
                       kMaxPieceBytes, ", the limit"));
    }
    scores.push_back(piece.score);
    piece_ids[Absl(text)] = id;
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  for (const BpeParts::Piece& piece : parts.pieces) {
    const auto& [text, id] = parts.vocabulary[piece.entry];
    NoteToken(text);
    const std::string_view whole = text;
    const auto rank = std::lower_bound(scores.begin(), scores.end(),
                                       piece.score, std::greater<>()) -
                      scores.begin();
    for (size_t cut = 0; cut < whole.size();) {
      cut += NextUtf8(whole, cut).bytes;
      const auto left = piece_ids.find(Absl(whole.substr(0, cut)));
      if (left == piece_ids.end()) continue;
      const auto right = piece_ids.find(Absl(whole.substr(cut)));
      if (right == piece_ids.end()) continue;
      merges_[PairKey(left->second, right->second)] = {
          static_cast<int32_t>(rank), id};
    }
  }
  return absl::OkStatus();
}

size_t BpeModel::IndependentPrefix(std::string_view word) const {
  if (!cuts_at_spaces_) return word.size();
  return std::min(word.size(), FindInnerMetaspace(word));
}

std::optional<int32_t> BpeModel::IdOf(std::string_view token) const {
  const auto it = ids_.find(Absl(token));
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

const BpeModel::Merge* BpeModel::FindMerge(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void BpeModel::Encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    const std::optional<int32_t> whole =
        byte_level_ ? IdOf(ByteAlphabet::Get().Spelling(word)) : IdOf(word);
    if (whole.has_value()) {
      ids.push_back(*whole);
      return;
    }
  }
  const size_t begin = ids.size();
  AppendSymbols(word, ids);
  if (ids.size() - begin <= kShortWord) {
    MergeShort(ids, begin);
  } else {
    MergeLong(ids, begin);
  }
}

void BpeModel::AppendSymbols(std::string_view word,
                             std::vector<int32_t>& ids) const {
  bool unknown_pending = false;  // an unknown token that may still grow
  for (size_t pos = 0; pos < word.size();) {
    const size_t bytes = byte_level_ ? 1 : NextUtf8(word, pos).bytes;
    const std::string_view symbol = word.substr(pos, bytes);
    pos += bytes;
    const auto byte_id = [&](char c) {
      return byte_ids_[static_cast<unsigned char>(c)];
    };
    std::optional<int32_t> id;
    if (!byte_level_) {
      id = IdOf(symbol);
    } else if (byte_id(symbol[0]) >= 0) {
      id = byte_id(symbol[0]);
    }
    if (id.has_value()) {
      if (std::exchange(unknown_pending, false)) ids.push_back(*unknown_id_);
      ids.push_back(*id);
      continue;
    }
    if (byte_fallback_ && !byte_level_ &&
        std::all_of(symbol.begin(), symbol.end(),
                    [&](char c) { return byte_id(c) >= 0; })) {
      for (char c : symbol) ids.push_back(byte_id(c));
      continue;
    }
    if (!unknown_id_.has_value()) continue;
    if (unknown_pending && !fuse_unknown_) ids.push_back(*unknown_id_);
    unknown_pending = true;
  }
  if (unknown_pending) ids.push_back(*unknown_id_);
}

void BpeModel::MergeShort(std::vector<int32_t>& ids, size_t begin) const {
  size_t count = ids.size() - begin;
  int32_t* symbols = ids.data() + begin;
  Merge pairs[kShortWord];  // of symbols i and i + 1
  const auto look_up = [&](size_t i) {
    const Merge* merge = FindMerge(symbols[i], symbols[i + 1]);
    pairs[i] = merge == nullptr ? Merge{kNoRank, 0} : *merge;
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoRank) break;
    symbols[best] = pairs[best].id;
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    if (best + 2 < count) {
      std::copy(pairs + best + 2, pairs + count - 1, pairs + best + 1);
    }
    --count;
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  ids.resize(begin + count);
}

void BpeModel::MergeLong(std::vector<int32_t>& ids, size_t begin) const {
  const auto count = static_cast<int32_t>(ids.size() - begin);
  std::vector<Symbol> symbols(static_cast<size_t>(count));
  // (rank, position, merged id), the lowest on top. A candidate is stale when
  // the pair at its position has become another one.
  using Candidate = std::tuple<int32_t, int32_t, int32_t>;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int32_t pos) {
    if (pos < 0 || symbols[pos].next < 0) return;
    const Merge* merge =
        FindMerge(symbols[pos].id, symbols[symbols[pos].next].id);
    if (merge != nullptr) queue.emplace(merge->rank, pos, merge->id);
  };
  for (int32_t i = 0; i < count; ++i) {
    symbols[i] = {ids[begin + static_cast<size_t>(i)], i - 1,
                  i + 1 < count ? i + 1 : -1};
  }
  for (int32_t i = 0; i < count; ++i) offer(i);
  constexpr int32_t kMerged = -1;
  while (!queue.empty()) {
    const auto [rank, pos, id] = queue.top();
    queue.pop();
    Symbol& left = symbols[pos];
    if (left.id == kMerged || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->id != id) continue;
    left.id = id;
    right.id = kMerged;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = pos;
    offer(left.previous);
    offer(pos);
  }
  ids.resize(begin);
  for (int32_t i = 0; i >= 0; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace bullpen
