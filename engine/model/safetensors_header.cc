#include "engine/model/safetensors_header.h"

#include <set>
#include <utility>

#include "base/strings.h"
#include "engine/model/config_fields.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

using nlohmann::json;

// Follows the parse through the only shape that a header may have:
// {name: {dtype: string, shape: [n...], data_offsets: [n, n]},
//  "__metadata__": {string: string}}.
class HeaderHandler : public nlohmann::json_sax<json> {
 public:
  std::vector<HeaderTensor>& tensors() { return tensors_; }
  const std::string& error() const { return error_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", Absl(Printable(text))));
  }
  bool number_integer(number_integer_t value) override {
    return Unexpected(absl::StrCat("the negative number ", value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      tensors_.back().shape.push_back(value);
      return true;
    }
    if (place_ == Place::kOffsets && offsets_ < 2) {
      HeaderTensor& tensor = tensors_.back();
      (offsets_ == 0 ? tensor.begin : tensor.end) = value;
      ++offsets_;
      return true;
    }
    return Unexpected(absl::StrCat("the number ", value));
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") {
      return Unexpected(absl::StrCat("the string '", Printable(value), "'"));
    }
    tensors_.back().dtype = std::move(value);
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
      return true;
    }
    if (place_ != Place::kTop) return Unexpected("an object");
    place_ = metadata_next_ ? Place::kMetadata : Place::kTensor;
    fields_.clear();
    offsets_ = 0;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor && fields_.size() < 3) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!fields_.contains(field)) {
          return Fail(absl::StrCat("has no ", field));
        }
      }
    }
    place_ = place_ == Place::kTop ? Place::kStart : Place::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || field_ == "dtype") {
      return Unexpected("an array");
    }
    place_ = field_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_ != 2) {
      return Fail(absl::StrCat("has data_offsets with ", offsets_,
                               " numbers instead of 2"));
    }
    place_ = Place::kTensor;
    return true;
  }

  bool key(string_t& name) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ == Place::kTensor) {
      if (name != "dtype" && name != "shape" && name != "data_offsets") {
        return Fail(absl::StrCat("has the unknown field '", Printable(name),
                                 "'; known are dtype, shape, data_offsets"));
      }
      if (!fields_.insert(name).second) {
        return Fail(absl::StrCat("has ", name, " twice"));
      }
      field_ = std::move(name);
      return true;
    }
    metadata_next_ = name == "__metadata__";
    if (!names_.insert(name).second) {
      error_ = absl::StrCat("tensor '", Printable(name),
                            "' stands in the header twice");
      return false;
    }
    if (!metadata_next_) tensors_.emplace_back().name = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& cause) override {
    error_ = absl::StrCat("header is not valid JSON at byte ", position, ": ",
                          Printable(cause.what()));
    return false;
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };

  bool Fail(const absl::AlphaNum& what) {
    error_ =
        absl::StrCat("tensor '", Printable(tensors_.back().name), "' ", what);
    return false;
  }

  bool Unexpected(const absl::AlphaNum& what) {
    switch (place_) {
      case Place::kStart:
        error_ = absl::StrCat("header is ", what, " instead of an object");
        return false;
      case Place::kMetadata:
        error_ = absl::StrCat("header has ", what,
                              " in __metadata__, where only strings may be");
        return false;
      case Place::kTop:
        if (metadata_next_) {
          error_ = absl::StrCat("header has ", what, " as its __metadata__");
          return false;
        }
        return Fail(absl::StrCat("is ", what, " instead of an object"));
      case Place::kShape:
        return Fail(absl::StrCat("has ", what, " in its shape"));
      case Place::kOffsets:
        return Fail(absl::StrCat("has ", what, " in its data_offsets"));
      case Place::kTensor:
        return Fail(absl::StrCat("has ", what, " as its ", field_));
    }
    return false;
  }

  Place place_ = Place::kStart;
  bool metadata_next_ = false;
  std::set<std::string> names_;
  std::set<std::string> fields_;
  std::string field_;
  int offsets_ = 0;
  std::vector<HeaderTensor> tensors_;
  std::string error_;
};

}  // namespace

absl::StatusOr<std::vector<HeaderTensor>> ParseSafetensorsHeader(
    std::string_view header, std::string_view where) {
  HeaderHandler handler;
  if (!json::sax_parse(header, &handler)) {
    return absl::DataLossError(
        absl::StrCat(Absl(where), ": ", handler.error()));
  }
  return std::move(handler.tensors());
}

}  // namespace bullpen
