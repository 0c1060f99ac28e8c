#include "server/openai_json.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/strings.h"
#include "server/errors.h"

namespace bullpen {
namespace {

using json = nlohmann::ordered_json;

constexpr size_t kShownBytes = 80;

// Builds a document and checks what nlohmann's own parser cannot be asked to:
// depth, how much memory it will take, and double keys. That there are none
// lets members be appended without a search, which in an ordered object is
// linear. Implements the SAX interface; every handler returns whether to go on.
class BodyReader {
 public:
  explicit BodyReader(const RequestLimits& limits) : limits_(limits) {}

  bool null() { return Add(nullptr); }
  bool boolean(bool value) { return Add(value); }
  bool number_integer(json::number_integer_t value) { return Add(value); }
  bool number_unsigned(json::number_unsigned_t value) { return Add(value); }
  bool number_float(json::number_float_t value, const json::string_t&) {
    return Add(value);
  }
  bool string(json::string_t& value) { return Add(std::move(value)); }
  bool binary(json::binary_t&) { return false; }  // not in JSON text
  bool start_object(size_t) { return Enter(json::object()); }
  bool start_array(size_t) { return Enter(json::array()); }
  bool end_object() { return Leave(); }
  bool end_array() { return Leave(); }
  bool key(json::string_t& name) {
    if (!Count()) return false;
    if (open_.back().keys.insert(name).second) {
      key_ = std::move(name);
      return true;
    }
    status_ = FieldError(
        name.substr(0, kShownBytes),
        absl::StrCat("the body has the field ", ShortJson(name), " twice"));
    return false;
  }
  bool parse_error(size_t position, const std::string&,
                   const json::exception&) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("the body is not valid JSON, at byte ", position));
    return false;
  }

  const absl::Status& status() const { return status_; }
  json& root() { return root_; }

 private:
  // An array or object whose end has not come. Its address is stable: what
  // holds it does not grow meanwhile.
  struct Open {
    json* value;
    std::set<std::string> keys;
  };

  json* Place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *open_.back().value;
    if (parent.is_array()) return &parent.emplace_back(std::move(value));
    auto& members = parent.get_ref<json::object_t&>();
    members.emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }
  bool Add(json value) {
    Place(std::move(value));
    return true;
  }
  // An object, list or field takes a hundred bytes and more, however short.
  bool Count() {
    if (++parts_ <= limits_.max_json_parts) return true;
    status_ = absl::InvalidArgumentError(
        absl::StrCat("the body has more than ", limits_.max_json_parts,
                     " objects, lists and fields"));
    return false;
  }
  bool Enter(json value) {
    if (!Count()) return false;
    if (open_.size() == static_cast<size_t>(limits_.max_json_depth)) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("the body is nested more than ", limits_.max_json_depth,
                       " levels deep"));
      return false;
    }
    open_.push_back({Place(std::move(value)), {}});
    return true;
  }
  bool Leave() {
    open_.pop_back();
    return true;
  }

  const RequestLimits& limits_;
  int32_t parts_ = 0;
  json root_;
  std::string key_;  // of the member to come
  std::vector<Open> open_;
  absl::Status status_;
};

// JSON does not tell 16 from 16.0, and some clients write the latter.
std::optional<int64_t> Integer(const json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > std::numeric_limits<int64_t>::max()) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (std::trunc(number) != number || std::fabs(number) > 0x1p53) {
    return std::nullopt;
  }
  return static_cast<int64_t>(number);
}

// Bytes of the well-formed UTF-8 sequence at the start of `text`, else 0.
size_t SequenceBytes(std::string_view text) {
  const unsigned char lead = static_cast<unsigned char>(text[0]);
  const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (length > text.size()) return 0;
  return IsValidUtf8(text.substr(0, length)) ? length : 0;
}

}  // namespace

absl::StatusOr<json> ParseJsonObject(std::string_view body,
                                     const RequestLimits& limits) {
  if (!IsValidUtf8(body)) {
    return absl::InvalidArgumentError("the body is not valid UTF-8");
  }
  BodyReader reader(limits);
  const bool well_formed = json::sax_parse(body, &reader);
  RETURN_IF_ERROR(reader.status());
  if (!well_formed || !reader.root().is_object()) {
    return absl::InvalidArgumentError("the body must be a JSON object");
  }
  return std::move(reader.root());
}

void AppendJsonString(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  size_t clean = 0;  // text[clean, i) can be copied as it stands
  size_t i = 0;
  const auto flush = [&](size_t skipped) {
    out.append(text.substr(clean, i - clean));
    i += skipped;
    clean = i;
  };
  while (i < text.size()) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      const size_t bytes = SequenceBytes(text.substr(i));
      if (bytes > 0) {
        i += bytes;
      } else {
        flush(1);
        out += "\xEF\xBF\xBD";
      }
    } else if (c == '"' || c == '\\') {
      flush(1);
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      flush(1);
      out += "\\n";
    } else if (c < 0x20 || c == 0x7F) {
      flush(1);
      out += "\\u00";
      out += kHex[c >> 4];
      out += kHex[c & 15];
    } else {
      ++i;
    }
  }
  flush(0);
  out += '"';
}

void AppendJsonNumber(std::string& out, float value) {
  // OpenAI's stand-in for "very unlikely".
  if (!std::isfinite(value)) value = -9999.0f;
  char digits[32];
  const auto [end, error] =
      std::to_chars(digits, digits + sizeof(digits), value);
  out.append(digits, end);
}

BodyFields::BodyFields(const json& object, std::string prefix)
    : object_(object), prefix_(std::move(prefix)) {}

const json* BodyFields::Any(std::string_view name) {
  read_.emplace(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<int64_t> BodyFields::Int64(std::string_view name) {
  const json* value = Any(name);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> number = Integer(*value);
  if (!number.has_value()) WrongType(name, *value, "a 64-bit integer");
  return number;
}

std::optional<int32_t> BodyFields::Int(std::string_view name) {
  const json* value = Any(name);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> number = Integer(*value);
  if (!number.has_value() || *number < std::numeric_limits<int32_t>::min() ||
      *number > std::numeric_limits<int32_t>::max()) {
    WrongType(name, *value, "a 32-bit integer");
    return std::nullopt;
  }
  return static_cast<int32_t>(*number);
}

std::optional<float> BodyFields::Float(std::string_view name) {
  const json* value = Any(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() ||
      std::fabs(value->get<double>()) > std::numeric_limits<float>::max()) {
    WrongType(name, *value, "a number");
    return std::nullopt;
  }
  return static_cast<float>(value->get<double>());
}

std::optional<bool> BodyFields::Bool(std::string_view name) {
  const json* value = Any(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) {
    WrongType(name, *value, "true or false");
    return std::nullopt;
  }
  return value->get<bool>();
}

std::optional<std::string> BodyFields::String(std::string_view name) {
  const json* value = Any(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    WrongType(name, *value, "a string");
    return std::nullopt;
  }
  return value->get<std::string>();
}

void BodyFields::Ignore(std::initializer_list<std::string_view> names) {
  for (std::string_view name : names) read_.emplace(name);
}

void BodyFields::Unsupported(std::string_view name,
                             std::initializer_list<json> harmless) {
  const json* value = Any(name);
  if (value == nullptr) return;
  for (const json& allowed : harmless) {
    if (*value == allowed) return;
  }
  std::string allowed = "null";
  for (const json& other : harmless) {
    allowed += " or " + ShortJson(other);
  }
  Fail(name, absl::StrCat("is not supported: it may be ", allowed, ", got ",
                          ShortJson(*value)));
}

void BodyFields::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void BodyFields::Fail(std::string_view name, std::string_view what) {
  const std::string field = absl::StrCat(prefix_, Absl(name));
  Fail(FieldError(field, absl::StrCat(field, " ", Absl(what))));
}

void BodyFields::WrongType(std::string_view name, const json& value,
                           std::string_view expected) {
  Fail(name,
       absl::StrCat("must be ", Absl(expected), ", got ", ShortJson(value)));
}

absl::Status BodyFields::Finish() const {
  RETURN_IF_ERROR(status_);
  for (const auto& [name, value] : object_.items()) {
    if (read_.contains(name)) continue;
    const std::string field = prefix_ + name;
    return FieldError(field.substr(0, kShownBytes),
                      absl::StrCat("unknown field ", ShortJson(json(field)),
                                   ": it is not supported"));
  }
  return absl::OkStatus();
}

std::string ShortJson(const json& value) {
  if (value.is_array() && value.size() > 8) {
    return absl::StrCat("an array of ", value.size());
  }
  if (value.is_object() && value.size() > 8) {
    return absl::StrCat("an object of ", value.size(), " fields");
  }
  if (value.is_string() &&
      value.get_ref<const std::string&>().size() > kShownBytes) {
    return absl::StrCat("a string of ",
                        value.get_ref<const std::string&>().size(), " bytes");
  }
  const std::string text =
      value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 2 * kShownBytes) {
    return value.is_array() ? "an array" : "an object";
  }
  return text;
}

}  // namespace bullpen
