#include "engine/model/tokenizer_document.h"

#include <limits>

#include "base/strings.h"

namespace bullpen {
namespace {

using nlohmann::json;

constexpr size_t kShownBytes = 80;

// Implements nlohmann's SAX interface; every handler returns whether to go on.
class DocumentReader {
 public:
  bool null() { return Value(nullptr); }
  bool boolean(bool value) { return Value(value); }
  bool number_integer(json::number_integer_t value) {
    return place_ == Place::kVocabulary ? WrongId() : Value(value);
  }
  bool number_unsigned(json::number_unsigned_t value) {
    if (place_ != Place::kVocabulary) return Value(value);
    if (value > uint64_t{std::numeric_limits<int32_t>::max()}) return WrongId();
    document_.vocabulary.emplace_back(std::move(key_),
                                      static_cast<int32_t>(value));
    return true;
  }
  bool number_float(json::number_float_t value, const json::string_t&) {
    return Value(value);
  }
  bool string(json::string_t& value) {
    if (place_ == Place::kPair && pair_size_ < 2) {
      std::pair<std::string, std::string>& pair = document_.merges.back();
      (pair_size_++ == 0 ? pair.first : pair.second) = std::move(value);
      return true;
    }
    if (place_ == Place::kMerges) return Merge(value);
    return Value(std::move(value));
  }
  bool binary(json::binary_t&) { return false; }  // not in JSON text

  bool start_object(size_t) {
    if (IsModelField("vocab")) {
      document_.has_vocabulary = true;
      document_.vocabulary.clear();
      place_ = Place::kVocabulary;
      return true;
    }
    return Enter(json::object());
  }
  bool end_object() {
    if (place_ == Place::kVocabulary) {
      place_ = Place::kElsewhere;
    } else {
      open_.pop_back();
    }
    return true;
  }
  bool start_array(size_t) {
    if (IsModelField("merges")) {
      document_.has_merges = true;
      document_.merges.clear();
      entry_ = 0;
      place_ = Place::kMerges;
      return true;
    }
    if (place_ == Place::kMerges) {
      document_.merges.emplace_back();
      pair_size_ = 0;
      place_ = Place::kPair;
      return true;
    }
    return Enter(json::array());
  }
  bool end_array() {
    if (place_ == Place::kPair) {
      if (pair_size_ != 2) return WrongMerge();
      ++entry_;
      place_ = Place::kMerges;
    } else if (place_ == Place::kMerges) {
      place_ = Place::kElsewhere;
    } else {
      open_.pop_back();
    }
    return true;
  }
  bool key(json::string_t& name) {
    key_ = std::move(name);
    if (open_.size() == 1) in_model_ = key_ == "model";
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const json::exception&) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("tokenizer.json: not valid JSON, at byte ", position));
    return false;
  }

  const absl::Status& status() const { return status_; }
  TokenizerDocument& document() { return document_; }

 private:
  // Within which of the two lists; kPair: within an entry of the merges.
  enum class Place { kElsewhere, kVocabulary, kMerges, kPair };

  bool IsModelField(std::string_view name) const {
    return place_ == Place::kElsewhere && open_.size() == 2 && in_model_ &&
           open_.back()->is_object() && key_ == name;
  }

  bool WrongId() {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("model.vocab['", key_.substr(0, kShownBytes),
                     "']: must be an integer from 0 to ",
                     std::numeric_limits<int32_t>::max()));
    return false;
  }

  bool WrongMerge() {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("model.merges[", entry_,
                     "]: must be \"left right\" or [\"left\", \"right\"]"));
    return false;
  }

  bool Merge(std::string_view text) {
    // A file of an old converter begins its list with "#version: 0.2".
    if (entry_++ == 0 && text.starts_with("#version")) return true;
    const size_t space = text.find(' ');
    if (space == std::string_view::npos ||
        text.find(' ', space + 1) != std::string_view::npos) {
      --entry_;
      return WrongMerge();
    }
    document_.merges.emplace_back(text.substr(0, space),
                                  text.substr(space + 1));
    return true;
  }

  // Puts a value where the document goes on; null within the lists.
  json* Put(json value) {
    if (place_ == Place::kVocabulary) return WrongId(), nullptr;
    if (place_ != Place::kElsewhere) return WrongMerge(), nullptr;
    if (open_.empty()) return &(document_.root = std::move(value));
    json& parent = *open_.back();
    if (parent.is_array()) return &parent.emplace_back(std::move(value));
    return &(parent[key_] = std::move(value));
  }
  bool Value(json value) { return Put(std::move(value)) != nullptr; }
  bool Enter(json value) {
    json* placed = Put(std::move(value));
    if (placed == nullptr) return false;
    open_.push_back(placed);
    return true;
  }

  TokenizerDocument document_;
  absl::Status status_;
  Place place_ = Place::kElsewhere;
  std::vector<json*> open_;  // arrays and objects whose end has not come
  std::string key_;
  bool in_model_ = false;
  int32_t pair_size_ = 0;
  size_t entry_ = 0;  // of the merges
};

}  // namespace

absl::StatusOr<TokenizerDocument> ReadTokenizerDocument(
    std::string_view bytes) {
  DocumentReader reader;
  if (json::sax_parse(bytes, &reader)) return std::move(reader.document());
  if (!reader.status().ok()) return reader.status();
  return absl::InvalidArgumentError("tokenizer.json: not valid JSON");
}

}  // namespace bullpen
