#include "engine/model/config_fields.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "base/file.h"
#include "base/status.h"
#include "base/strings.h"

namespace bullpen {
namespace {

using nlohmann::json;

// Watches a parse for what the document would hide: depth, duplicate keys.
class StrictHandler : public nlohmann::json_sax<json> {
 public:
  const std::string& error() const { return error_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

  bool start_object(size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool start_array(size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }

  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    error_ = absl::StrCat("has the key '", Printable(name), "' twice");
    return false;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& cause) override {
    error_ = absl::StrCat("is not valid JSON at byte ", position, ": ",
                          Printable(cause.what()));
    return false;
  }

 private:
  bool Enter() {
    keys_.emplace_back();
    if (keys_.size() <= kJsonDepthLimit) return true;
    error_ = absl::StrCat("nests deeper than ", kJsonDepthLimit, " levels");
    return false;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;
  std::string error_;
};

constexpr size_t kMostShown = 200;

std::string Dump(const json& value) {
  // ASCII only, so that it can be cut anywhere.
  std::string shown = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (shown.size() > kMostShown) shown = shown.substr(0, kMostShown) + "...";
  return shown;
}

// NaN: it is no number.
double NumberOf(const json& value) {
  if (value.is_number()) return value.get<double>();
  if (!value.is_object() || value.size() != 1) return NAN;
  const auto spelled = value.find("__float__");
  if (spelled == value.end()) return NAN;
  if (*spelled == "Infinity") return INFINITY;
  return *spelled == "-Infinity" ? -INFINITY : NAN;
}

}  // namespace

std::string Printable(std::string_view text) {
  size_t size = std::min(text.size(), kMostShown);
  const bool cut = size < text.size();
  // Not in the middle of a character.
  while (cut && size > 0 && (text[size] & 0xC0) == 0x80) --size;
  return absl::StrCat(absl::Utf8SafeCHexEscape(Absl(text.substr(0, size))),
                      cut ? "..." : "");
}

absl::StatusOr<json> ParseJson(std::string_view text, std::string_view where,
                               absl::StatusCode error_code) {
  StrictHandler handler;
  if (!json::sax_parse(text, &handler)) {
    return absl::Status(error_code,
                        absl::StrCat(Absl(where), " ", handler.error()));
  }
  return json::parse(text, nullptr, /*allow_exceptions=*/false);
}

absl::StatusOr<json> ReadJsonFile(const std::filesystem::path& path,
                                  absl::StatusCode error_code) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kJsonFileLimit));
  return ParseJson(text, path.string(), error_code);
}

ConfigFields::ConfigFields(const json& object, std::string where,
                           absl::StatusCode error_code)
    : object_(&object), where_(std::move(where)), error_code_(error_code) {
  if (!object.is_object()) {
    Fail(absl::Status(error_code_,
                      absl::StrCat(where_, " is not a JSON object")));
  }
}

const json& ConfigFields::At(const char* key) const {
  static const json kAbsent;
  if (!object_->is_object()) return kAbsent;
  const auto found = object_->find(key);
  return found == object_->end() ? kAbsent : *found;
}

bool ConfigFields::Has(const char* key) const { return !At(key).is_null(); }

void ConfigFields::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void ConfigFields::Wrong(const char* key, std::string_view wanted) {
  Fail(absl::Status(
      error_code_,
      Has(key) ? absl::StrCat(where_, ": ", key, " = ", Dump(At(key)),
                              ", but it must be ", Absl(wanted))
               : absl::StrCat(where_, ": ", key, " is missing; it must be ",
                              Absl(wanted))));
}

void ConfigFields::Refuse(const char* key, std::string_view allowed) {
  Fail(absl::Status(error_code_,
                    absl::StrCat(where_, ": ", key, " = ", Dump(At(key)),
                                 " is not supported; ", Absl(allowed))));
}

int32_t ConfigFields::Int(const char* key, IntRange range) {
  const json& value = At(key);
  const bool good =
      value.is_number_integer() &&
      // An unsigned value beyond int64 would read as a negative one.
      (!value.is_number_unsigned() ||
       value.get<uint64_t>() <= static_cast<uint64_t>(range.most)) &&
      value.get<int64_t>() >= range.least && value.get<int64_t>() <= range.most;
  if (good) return static_cast<int32_t>(value.get<int64_t>());
  Wrong(key, absl::StrCat("an integer from ", range.least, " to ", range.most));
  return static_cast<int32_t>(range.least);
}

int32_t ConfigFields::Int(const char* key, IntRange range, int32_t otherwise) {
  return Has(key) ? Int(key, range) : otherwise;
}

double ConfigFields::Number(const char* key, NumberRange range,
                            double otherwise) {
  if (!Has(key)) return otherwise;
  const double number = NumberOf(At(key));
  if (number > range.least && number <= range.most) return number;
  Wrong(key, absl::StrCat("a number above ", range.least, " and at most ",
                          range.most));
  return otherwise;
}

bool ConfigFields::Bool(const char* key, bool otherwise) {
  if (!Has(key)) return otherwise;
  if (At(key).is_boolean()) return At(key).get<bool>();
  Wrong(key, "true or false");
  return otherwise;
}

std::string ConfigFields::String(const char* key) {
  if (At(key).is_string()) return At(key).get<std::string>();
  Wrong(key, "a string");
  return "";
}

std::string ConfigFields::String(const char* key, std::string otherwise) {
  return Has(key) ? String(key) : std::move(otherwise);
}

std::vector<int32_t> ConfigFields::Ints(const char* key, IntRange range) {
  std::vector<int32_t> numbers;
  if (!Has(key)) return numbers;
  const json& value = At(key);
  const json list = value.is_array() ? value : json::array({value});
  for (const json& item : list) {
    const json object = {{key, item}};
    ConfigFields one(object, where_, error_code_);
    numbers.push_back(one.Int(key, range));
    Fail(one.status());
  }
  return numbers;
}

std::vector<double> ConfigFields::Numbers(const char* key, NumberRange range) {
  std::vector<double> numbers;
  if (!Has(key)) return numbers;
  const json& value = At(key);
  if (!value.is_array()) {
    Wrong(key, "a list of numbers");
    return numbers;
  }
  for (const json& item : value) {
    const double number = NumberOf(item);
    if (number > range.least && number <= range.most) {
      numbers.push_back(number);
      continue;
    }
    Wrong(key, absl::StrCat("a list of numbers above ", range.least,
                            " and at most ", range.most));
    return numbers;
  }
  return numbers;
}

ConfigFields ConfigFields::Object(const char* key) {
  static const json kEmpty = json::object();
  const bool good = At(key).is_object();
  if (!good) Wrong(key, "an object");
  return ConfigFields(good ? At(key) : kEmpty, absl::StrCat(where_, ": ", key),
                      error_code_);
}

}  // namespace bullpen
