#include "server/openai_messages.h"

#include <string>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "server/errors.h"
#include "server/openai_json.h"

namespace bullpen {
namespace {

using json = nlohmann::ordered_json;

constexpr size_t kMaxVariables = 32;
constexpr size_t kMaxVariableBytes = 1024;

absl::StatusOr<std::string> TextOfPart(const json& part,
                                       const std::string& place) {
  if (!part.is_object()) {
    return FieldError(place, absl::StrCat(place, " must be an object, got ",
                                          ShortJson(part)));
  }
  BodyFields fields(part, place + ".");
  const std::string type = fields.String("type").value_or("");
  if (type != "text") {
    return FieldError(place + ".type",
                      absl::StrCat(place, ".type must be \"text\", got ",
                                   ShortJson(json(type))));
  }
  std::optional<std::string> text = fields.String("text");
  if (!text.has_value()) fields.Fail("text", "is missing");
  RETURN_IF_ERROR(fields.Finish());
  return *std::move(text);
}

absl::StatusOr<std::string> Content(const json* content,
                                    const std::string& place) {
  if (content == nullptr) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    return FieldError(place, absl::StrCat(place,
                                          " must be a string, null or "
                                          "a list of text parts, got ",
                                          ShortJson(*content)));
  }
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    ASSIGN_OR_RETURN(
        const std::string part,
        TextOfPart((*content)[i], absl::StrCat(place, "[", i, "]")));
    if (i > 0) text += '\n';
    text += part;
  }
  return text;
}

// {"type": "function", "function": {"name": ...}}; other fields are the
// template's affair.
absl::Status CheckFunction(const json& entry, const std::string& place) {
  const auto is_function = [&] {
    if (!entry.is_object()) return false;
    const auto type = entry.find("type");
    return type == entry.end() || *type == "function";
  };
  if (!is_function()) {
    return FieldError(place, absl::StrCat(place,
                                          " must be an object of type "
                                          "\"function\", got ",
                                          ShortJson(entry)));
  }
  const auto function = entry.find("function");
  if (function != entry.end() && function->is_object()) {
    const auto name = function->find("name");
    if (name != function->end() && name->is_string()) return absl::OkStatus();
  }
  return FieldError(place, absl::StrCat(place, ".function.name is missing"));
}

// A list of functions, or of calls of them.
absl::Status CheckFunctions(const json& list, const std::string& place) {
  if (!list.is_array()) {
    return FieldError(
        place, absl::StrCat(place, " must be a list, got ", ShortJson(list)));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    RETURN_IF_ERROR(CheckFunction(list[i], absl::StrCat(place, "[", i, "]")));
  }
  return absl::OkStatus();
}

absl::StatusOr<json> Message(const json& message, const std::string& place) {
  if (!message.is_object()) {
    return FieldError(place, absl::StrCat(place, " must be an object, got ",
                                          ShortJson(message)));
  }
  BodyFields fields(message, place + ".");
  const std::optional<std::string> role = fields.String("role");
  if (!role.has_value()) fields.Fail("role", "is missing");
  // Only an assistant's message may have nothing to say.
  const json* said = fields.Any("content");
  if (said == nullptr && role != "assistant") {
    fields.Fail("content", "is missing");
  }
  const absl::StatusOr<std::string> content = Content(said, place + ".content");
  fields.Fail(content.status());
  json parsed = json::object();
  for (const char* name : {"name", "tool_call_id", "reasoning_content"}) {
    if (const auto text = fields.String(name)) parsed[name] = *text;
  }
  const json* calls = fields.Any("tool_calls");
  if (calls != nullptr) {
    fields.Fail(CheckFunctions(*calls, place + ".tool_calls"));
  }
  for (const char* name :
       {"function_call", "refusal", "audio", "annotations"}) {
    fields.Unsupported(name, {json::array()});
  }
  RETURN_IF_ERROR(fields.Finish());
  parsed["role"] = *role;
  parsed["content"] = *content;
  if (calls != nullptr && !calls->empty()) {
    parsed["tool_calls"] = *calls;
    // Templates tell a call without words by this.
    if (said == nullptr) parsed["content"] = nullptr;
  }
  return parsed;
}

bool IsVariableName(std::string_view name) {
  if (name.empty() || name.size() > 64) return false;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && c != '_' && (c < '0' || c > '9')) return false;
  }
  return true;
}

// What the server gives, or what would change how it renders.
bool IsReserved(std::string_view name) {
  for (const std::string_view reserved :
       {"messages", "tools", "documents", "chat_template", "tokenize",
        "add_generation_prompt", "continue_final_message", "bos_token",
        "eos_token", "raise_exception", "strftime_now"}) {
    if (name == reserved) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<json> ParseMessages(const json* messages, int32_t max_messages) {
  if (messages == nullptr) {
    return FieldError("messages", "messages is missing");
  }
  if (!messages->is_array() || messages->empty()) {
    return FieldError("messages",
                      absl::StrCat("messages must be a list of at least one "
                                   "message, got ",
                                   ShortJson(*messages)));
  }
  if (messages->size() > static_cast<size_t>(max_messages)) {
    return FieldError(
        "messages",
        absl::StrCat("messages has ", messages->size(), " entries, at most ",
                     max_messages, " are allowed"));
  }
  json parsed = json::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    ASSIGN_OR_RETURN(json message, Message((*messages)[i],
                                           absl::StrCat("messages[", i, "]")));
    parsed.push_back(std::move(message));
  }
  return parsed;
}

absl::StatusOr<json> ParseTools(const json* tools) {
  if (tools == nullptr || *tools == json::array()) return nullptr;
  RETURN_IF_ERROR(CheckFunctions(*tools, "tools"));
  return *tools;
}

absl::StatusOr<json> ParseTemplateVariables(const json* variables) {
  static constexpr char kField[] = "chat_template_kwargs";
  if (variables == nullptr) return json::object();
  if (!variables->is_object() || variables->size() > kMaxVariables) {
    return FieldError(
        kField,
        absl::StrCat(kField, " must be an object of at most ", kMaxVariables,
                     " fields, got ", ShortJson(*variables)));
  }
  for (const auto& [name, value] : variables->items()) {
    if (!IsVariableName(name) || IsReserved(name)) {
      return FieldError(kField, absl::StrCat(kField, " must not set ",
                                             ShortJson(json(name))));
    }
    const bool long_text =
        value.is_string() &&
        value.get_ref<const std::string&>().size() > kMaxVariableBytes;
    if (value.is_structured() || long_text) {
      return FieldError(
          kField,
          absl::StrCat(kField, ".", name,
                       " must be a boolean, a number or a "
                       "string of at most ",
                       kMaxVariableBytes, " bytes, got ", ShortJson(value)));
    }
  }
  return *variables;
}

}  // namespace bullpen
