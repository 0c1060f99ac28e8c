#include "engine/model/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/file.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/sentencepiece_model.h"
#include "engine/model/tokenizer_json.h"
#include "engine/model/tokenizer_parts.h"
#include "engine/model/utf8.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{256} << 20;
// Ids index a table; those of real files are dense but for some hundreds.
constexpr int64_t kIdSlack = int64_t{1} << 16;
// Distinct words that one call remembers.
constexpr size_t kMaxRememberedWords = size_t{1} << 16;
// A text that is longer in bytes is worth remembering words for.
constexpr size_t kRememberFrom = 256;
// Complete text that a stream holds back for a character that never comes.
constexpr size_t kMaxPending = 64;

using AddedIds = absl::flat_hash_map<std::string, int32_t>;

// An added token that the vocabulary spells has the vocabulary's id, whatever
// its own entry says. InvalidArgument: an id that two tokens have.
absl::StatusOr<AddedIds> ResolveAddedIds(const BpeModel& model,
                                         TokenizerParts& parts) {
  // Who has the ids that added tokens want; empty: nobody.
  absl::flat_hash_map<int32_t, std::string> names;
  for (AddedToken& token : parts.added) {
    token.id = model.IdOf(token.content).value_or(token.id);
    names[token.id];
  }
  for (const auto& [token, id] : parts.bpe.vocabulary) {
    const auto name = names.find(id);
    if (name != names.end()) name->second = token;
  }
  AddedIds ids;
  for (const AddedToken& token : parts.added) {
    std::string& name = names[token.id];
    if (name.empty()) name = token.content;
    if (name != token.content) {
      return absl::InvalidArgumentError(
          absl::StrCat("added_tokens: id ", token.id, " of '", token.content,
                       "' belongs to '", name, "'"));
    }
    ids[token.content] = token.id;
  }
  return ids;
}

// The highest id + 1. InvalidArgument: an id far beyond the number of tokens.
absl::StatusOr<int32_t> TableSize(const TokenizerParts& parts) {
  int64_t highest = -1;
  for (const auto& [token, id] : parts.bpe.vocabulary) {
    highest = std::max<int64_t>(highest, id);
  }
  for (const AddedToken& token : parts.added) {
    highest = std::max<int64_t>(highest, token.id);
  }
  const auto entries =
      static_cast<int64_t>(parts.bpe.vocabulary.size() + parts.added.size());
  const int64_t limit = 2 * entries + kIdSlack;
  if (highest > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.json: id ", highest, " > ", limit,
                     ", the limit for ", entries, " tokens"));
  }
  for (const std::vector<int32_t>* ids : {&parts.prefix, &parts.suffix}) {
    for (int32_t id : *ids) {
      if (id <= highest) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "post_processor: id ", id, " > ", highest, ", the highest token"));
    }
  }
  return static_cast<int32_t>(highest + 1);
}

absl::StatusOr<nlohmann::json> ReadJson(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxFileBytes));
  nlohmann::json root = nlohmann::json::parse(bytes, nullptr, false);
  if (root.is_discarded()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": not valid JSON"));
  }
  return root;
}

absl::StatusOr<TokenizerParts> ReadSentencePiece(
    const std::filesystem::path& dir, std::string_view model) {
  absl::StatusOr<nlohmann::json> config =
      ReadJson(dir / "tokenizer_config.json");
  if (absl::IsNotFound(config.status())) config = nlohmann::json::object();
  RETURN_IF_ERROR(config.status());
  return ParseSentencePieceModel(model, *config);
}

// tokenizer.json, or else tokenizer.model.
absl::StatusOr<TokenizerParts> ReadParts(const std::filesystem::path& dir) {
  const absl::StatusOr<std::string> json =
      ReadFile(dir / "tokenizer.json", kMaxFileBytes);
  if (json.ok()) return ParseTokenizerJson(*json);
  if (!absl::IsNotFound(json.status())) return json.status();
  const absl::StatusOr<std::string> model =
      ReadFile(dir / "tokenizer.model", kSentencePieceFileLimit);
  if (model.ok()) return ReadSentencePiece(dir, *model);
  if (!absl::IsNotFound(model.status())) return model.status();
  return absl::NotFoundError(absl::StrCat(
      dir.string(), ": neither tokenizer.json nor tokenizer.model"));
}

}  // namespace

struct Tokenizer::Data {
  Normalizer normalizer;
  PreTokenizer pretokenizer;
  BpeModel model;
  TokenTable table;
  AddedIds added_ids;
  AddedTokenMatcher in_text;        // tokens found before normalisation
  AddedTokenMatcher in_normalized;  // and after it
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;

  void Fill(const TokenizerParts& parts);
};

void Tokenizer::Data::Fill(const TokenizerParts& parts) {
  for (const auto& [token, id] : parts.bpe.vocabulary) {
    table.Set(id, token, false);
  }
  for (const auto& [id, text] : parts.spellings) table.Set(id, text, false);
  for (int32_t id : parts.special) table.MarkSpecial(id);
  std::string storage;
  for (const AddedToken& token : parts.added) {
    // In normalised text a token has the spelling that it has there, which the
    // decoder undoes; the reference then knows it no more as a special one.
    const std::string_view content =
        token.where == AddedToken::Where::kNormalized
            ? normalizer.Apply(token.content, storage)
            : token.content;
    table.Set(token.id, content, token.special && content == token.content);
    if (token.where == AddedToken::Where::kText) {
      in_text.Add(token, content);
    } else if (!content.empty()) {
      in_normalized.Add(token, content);
    }
  }
}

namespace {

// Encodes stretches of ordinary text one after the other. A word that was seen
// before is copied from where its ids stand in the result.
class WordEncoder {
 public:
  WordEncoder(const PreTokenizer& pretokenizer, const BpeModel& model,
              bool remember)
      : pretokenizer_(pretokenizer), model_(model), remember_(remember) {}

  // `text` must outlive this object when `remember` is set. start_bytes: of it
  // that stem from the first character of the whole text.
  void Encode(std::string_view text, size_t start_bytes,
              std::vector<int32_t>& ids) {
    pretokenizer_.Split(text, start_bytes, scratch_);
    for (std::string_view word : scratch_.words) {
      while (!word.empty()) {
        const size_t bytes = model_.IndependentPrefix(word);
        EncodeWord(word.substr(0, bytes), ids);
        word.remove_prefix(bytes);
      }
    }
  }

 private:
  void EncodeWord(std::string_view word, std::vector<int32_t>& ids) {
    if (!remember_) return model_.Encode(word, ids);
    const auto it = seen_.find(Absl(word));
    if (it != seen_.end()) {
      const Range range = it->second;
      const size_t end = ids.size();
      ids.resize(end + range.count);
      std::copy_n(ids.data() + range.begin, range.count, ids.data() + end);
      return;
    }
    const size_t begin = ids.size();
    model_.Encode(word, ids);
    if (seen_.size() < kMaxRememberedWords) {
      seen_.emplace(Absl(word), Range{begin, ids.size() - begin});
    }
  }

  struct Range {
    size_t begin = 0;
    size_t count = 0;
  };

  const PreTokenizer& pretokenizer_;
  const BpeModel& model_;
  bool remember_;
  PreTokenizer::Scratch scratch_;
  absl::flat_hash_map<absl::string_view, Range> seen_;
};

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Data> data) : data_(std::move(data)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromDirectory(
    const std::filesystem::path& dir) {
  ASSIGN_OR_RETURN(TokenizerParts parts, ReadParts(dir));
  return FromParts(std::move(parts));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromParts(
    TokenizerParts parts) {
  ASSIGN_OR_RETURN(BpeModel model, BpeModel::Create(parts.bpe));
  ASSIGN_OR_RETURN(AddedIds added_ids, ResolveAddedIds(model, parts));
  ASSIGN_OR_RETURN(const int32_t size, TableSize(parts));
  auto data = std::unique_ptr<Data>(
      new Data{.normalizer = std::move(parts.normalizer),
               .pretokenizer = std::move(parts.pretokenizer),
               .model = std::move(model),
               .table = TokenTable(parts.decode, size),
               .added_ids = std::move(added_ids),
               .in_text = {},
               .in_normalized = {},
               .prefix = parts.prefix,
               .suffix = parts.suffix});
  data->Fill(parts);
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(data)));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text,
                                       bool add_special) const {
  std::string repaired;
  if (!IsValidUtf8(text)) {
    AppendLossyUtf8(text, repaired);
    text = repaired;
  }
  std::vector<int32_t> ids;
  if (add_special) ids = data_->prefix;
  std::vector<AddedTokenMatcher::Segment> outer;
  std::vector<AddedTokenMatcher::Segment> inner;
  data_->in_text.Split(text, outer);
  std::vector<std::string> storage(outer.size());
  WordEncoder words(data_->pretokenizer, data_->model,
                    text.size() >= kRememberFrom);
  for (size_t i = 0; i < outer.size(); ++i) {
    if (outer[i].id >= 0) {
      ids.push_back(outer[i].id);
      continue;
    }
    inner.clear();
    size_t start_bytes =
        i == 0 ? data_->normalizer.BytesOfFirst(outer[i].text) : 0;
    data_->in_normalized.Split(
        data_->normalizer.Apply(outer[i].text, storage[i]), inner);
    for (const AddedTokenMatcher::Segment& segment : inner) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else {
        words.Encode(segment.text, start_bytes, ids);
      }
      start_bytes -= std::min(start_bytes, segment.text.size());
    }
  }
  if (add_special) {
    ids.insert(ids.end(), data_->suffix.begin(), data_->suffix.end());
  }
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids,
                              bool skip_special) const {
  return data_->table.Decode(ids, skip_special);
}

std::string Tokenizer::TokenBytes(int32_t id) const {
  return std::string(data_->table.Bytes(id));
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return data_->table.IsSpecial(id);
}

std::optional<int32_t> Tokenizer::IdOf(std::string_view token) const {
  const auto it = data_->added_ids.find(Absl(token));
  if (it != data_->added_ids.end()) return it->second;
  return data_->model.IdOf(token);
}

int32_t Tokenizer::vocab_size() const { return data_->table.size(); }

DecodeStream::DecodeStream(const Tokenizer& tokenizer, bool skip_special)
    : table_(tokenizer.data_->table),
      skip_special_(skip_special),
      strip_left_(table_.steps().strip_count) {}

std::string DecodeStream::Push(int32_t id) {
  if (!table_.Contains(id) || (skip_special_ && table_.IsSpecial(id))) {
    return "";
  }
  const std::string_view bytes =
      first_ ? table_.FirstBytes(id, first_) : table_.Bytes(id);
  if (!table_.steps().byte_level && !table_.IsByte(id)) {
    return Start(TakePending(0).append(bytes));
  }
  pending_.append(bytes);
  const size_t tail = IncompleteUtf8Tail(pending_);
  // A token that ends within a character waits for it as a whole.
  if (tail > 0 && pending_.size() <= kMaxPending) return "";
  return Start(TakePending(tail));
}

std::string DecodeStream::Flush() { return Start(TakePending(0)); }

std::string DecodeStream::TakePending(size_t keep) {
  std::string out;
  const size_t complete = pending_.size() - keep;
  table_.AppendBytes(std::string_view(pending_).substr(0, complete), out);
  pending_.erase(0, complete);
  return out;
}

std::string DecodeStream::Start(std::string text) {
  if (text.empty()) return text;
  const DecodeSteps& steps = table_.steps();
  for (; strip_left_ > 0 && text.starts_with(steps.strip); --strip_left_) {
    text.erase(0, steps.strip.size());
  }
  // Once something else has come, nothing more is taken.
  if (!text.empty()) strip_left_ = 0;
  if (!steps.separator.empty() && !std::exchange(at_start_, false)) {
    text.insert(0, steps.separator);
  }
  return text;
}

}  // namespace bullpen
