#include "base/strings.h"
#include "server/chat_template.h"

// A ChatTemplate by substitution at link time: "role: content\n" for each
// message, without a helper process.
namespace bullpen {

struct ChatTemplate::Process {};

ChatTemplate::ChatTemplate() = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::FromDirectory(
    const std::filesystem::path&, const ChatTemplateConfig&) {
  return std::unique_ptr<ChatTemplate>(new ChatTemplate());
}

absl::StatusOr<std::string> ChatTemplate::Render(
    const nlohmann::ordered_json& messages, const nlohmann::ordered_json&,
    const nlohmann::ordered_json& variables) {
  std::string text;
  for (const nlohmann::ordered_json& message : messages) {
    absl::StrAppend(&text, message["role"].get<std::string>(), ": ",
                    message["content"].get<std::string>(), "\n");
  }
  if (variables["add_generation_prompt"] == true) text += "assistant: ";
  return text;
}

}  // namespace bullpen
