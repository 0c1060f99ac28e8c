#include "server/chat_template.h"

#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/file.h"
#include "base/status.h"
#include "base/strings.h"
#include "server/chat_template_script.h"
#include "server/line_process.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

using nlohmann::ordered_json;

// Starting Python and importing jinja2, on a machine that is busy.
constexpr std::chrono::seconds kStartTimeout{30};
constexpr size_t kReadyBytesMax = size_t{1} << 16;

constexpr int64_t kFileBytesMax = int64_t{100} << 20;

// Nothing if there is no such name; one that cannot be read is an error.
absl::StatusOr<std::optional<std::string>> ReadIfThere(
    const std::filesystem::path& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kFileBytesMax);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  return text;
}

// A special token is a string or an object with its content.
std::optional<std::string> TokenText(const ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object()) return std::nullopt;
  const auto content = value.find("content");
  if (content == value.end() || !content->is_string()) return std::nullopt;
  return content->get<std::string>();
}

// What templates may name: bos_token and its like.
ordered_json SpecialTokens(const ordered_json& config) {
  ordered_json tokens = ordered_json::object();
  for (const auto& [key, value] : config.items()) {
    if (!std::string_view(key).ends_with("_token")) continue;
    if (auto text = TokenText(value)) tokens[key] = *std::move(text);
  }
  return tokens;
}

// chat_template: one source, or a list of {"name", "template"}.
absl::StatusOr<ordered_json> Templates(const ordered_json& config) {
  ordered_json sources = ordered_json::object();
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return sources;
  if (found->is_string()) {
    sources["default"] = *found;
    return sources;
  }
  const absl::Status error = absl::InvalidArgumentError(
      "tokenizer_config.json: chat_template must be a string or a list of "
      "{\"name\", \"template\"}");
  if (!found->is_array()) return error;
  for (const ordered_json& entry : *found) {
    if (!entry.is_object() || !entry.contains("name") ||
        !entry["name"].is_string() || !entry.contains("template") ||
        !entry["template"].is_string()) {
      return error;
    }
    sources[entry["name"].get<std::string>()] = entry["template"];
  }
  return sources;
}

bool AnyMentions(const ordered_json& templates, std::string_view name) {
  for (const ordered_json& source : templates) {
    const auto& text = source.get_ref<const std::string&>();
    if (text.find(name) != std::string::npos) return true;
  }
  return templates.empty();
}

std::string Line(const ordered_json& document) {
  return document.dump(-1, ' ', false, ordered_json::error_handler_t::replace) +
         "\n";
}

}  // namespace

// The helper and what it must be told. It is started early and waited for at
// the first rendering.
struct ChatTemplate::Process {
  ChatTemplateConfig config;
  bool has_template = false;
  std::string setup;  // the first line that a fresh helper gets

  absl::Mutex mutex;
  std::unique_ptr<LineProcess> helper ABSL_GUARDED_BY(mutex);
  bool ready ABSL_GUARDED_BY(mutex) = false;

  absl::Status Start() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  absl::Status EnsureReady() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  absl::StatusOr<std::string> Exchange(const std::string& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  absl::StatusOr<std::string> Ask(const std::string& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  absl::StatusOr<std::string> Text(const std::string& answer) const;
  absl::Status Explain(const absl::Status& status) const;
  absl::Status NeedsPython(absl::string_view why) const;
};

absl::Status ChatTemplate::Process::Start() {
  ready = false;
  helper.reset();
  auto spawned = LineProcess::Spawn(
      {config.python, "-I", "-B", "-c", kChatTemplateScript});
  if (!spawned.ok()) return NeedsPython(spawned.status().message());
  helper = *std::move(spawned);
  return absl::OkStatus();
}

absl::Status ChatTemplate::Process::EnsureReady() {
  if (helper == nullptr || !helper->Running()) RETURN_IF_ERROR(Start());
  if (ready) return absl::OkStatus();
  const auto deadline = std::chrono::steady_clock::now() + kStartTimeout;
  const absl::StatusOr<std::string> line =
      helper->ReadLine(kReadyBytesMax, deadline);
  std::string why = "it did not start";
  if (line.ok()) {
    const ordered_json answer = ordered_json::parse(*line, nullptr, false);
    ready = answer.is_object() && answer.contains("ready");
    if (answer.is_object() && answer.contains("missing")) {
      why = answer["missing"].dump();
    }
  }
  if (ready) return helper->Send(setup, deadline);
  helper.reset();
  return NeedsPython(why);
}

absl::StatusOr<std::string> ChatTemplate::Process::Exchange(
    const std::string& request) {
  const auto deadline =
      std::chrono::steady_clock::now() +
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(
          std::chrono::duration<double>(config.timeout_seconds));
  RETURN_IF_ERROR(helper->Send(request, deadline));
  // A byte of text takes up to six in JSON.
  return helper->ReadLine(
      static_cast<size_t>(6 * config.max_output_bytes) + kReadyBytesMax,
      deadline);
}

absl::StatusOr<std::string> ChatTemplate::Process::Ask(
    const std::string& request) {
  RETURN_IF_ERROR(EnsureReady());
  absl::StatusOr<std::string> answer = Exchange(request);
  if (absl::IsUnavailable(answer.status())) {
    // A helper that was killed from outside may show only now.
    RETURN_IF_ERROR(Start());
    RETURN_IF_ERROR(EnsureReady());
    answer = Exchange(request);
  }
  if (answer.ok()) return answer;
  // The next rendering finds a helper that has had time to start.
  RETURN_IF_ERROR(Start());
  return Explain(answer.status());
}

absl::Status ChatTemplate::Process::NeedsPython(absl::string_view why) const {
  return absl::UnimplementedError(
      absl::StrCat("chat templates need jinja2, which the Python '",
                   config.python, "' cannot give: ", why));
}

absl::Status ChatTemplate::Process::Explain(const absl::Status& status) const {
  if (absl::IsDeadlineExceeded(status)) {
    return absl::DeadlineExceededError(
        absl::StrCat("chat template: rendering took longer than ",
                     config.timeout_seconds, " s, the limit"));
  }
  if (absl::IsUnavailable(status)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "chat template: the helper process ended while rendering (limits: ",
        FormatBytes(config.memory_bytes), ", ", config.timeout_seconds, " s)"));
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("chat template: output exceeds ",
                   FormatBytes(config.max_output_bytes), ", the limit"));
}

absl::StatusOr<std::string> ChatTemplate::Process::Text(
    const std::string& line) const {
  ordered_json answer = ordered_json::parse(line, nullptr, false);
  const auto string = [&](const char* key) -> std::optional<std::string> {
    if (!answer.is_object() || !answer.contains(key)) return std::nullopt;
    if (!answer[key].is_string()) return std::nullopt;
    return answer[key].get<std::string>();
  };
  if (std::optional<std::string> text = string("text")) {
    if (static_cast<int64_t>(text->size()) <= config.max_output_bytes) {
      return *std::move(text);
    }
    return Explain(absl::ResourceExhaustedError("output"));
  }
  const std::string error = string("error").value_or("no answer");
  if (string("kind") != "limit") {
    return absl::InvalidArgumentError(absl::StrCat("chat template: ", error));
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "chat template: ", error, " (limits: ", FormatBytes(config.memory_bytes),
      " of memory, ", FormatBytes(config.max_output_bytes), " of output)"));
}

ChatTemplate::ChatTemplate() : process_(std::make_unique<Process>()) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::FromDirectory(
    const std::filesystem::path& dir, const ChatTemplateConfig& config) {
  ordered_json document = ordered_json::object();
  ASSIGN_OR_RETURN(const std::optional<std::string> text,
                   ReadIfThere(dir / "tokenizer_config.json"));
  if (text.has_value()) {
    document = ordered_json::parse(*text, nullptr, false);
    if (!document.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(
          (dir / "tokenizer_config.json").string(), ": not a JSON object"));
    }
  }
  ASSIGN_OR_RETURN(ordered_json templates, Templates(document));
  ASSIGN_OR_RETURN(std::optional<std::string> source,
                   ReadIfThere(dir / "chat_template.jinja"));
  if (source.has_value()) templates["default"] = *std::move(source);
  auto result = std::unique_ptr<ChatTemplate>(new ChatTemplate());
  result->takes_tools_ =
      AnyMentions(templates, "tools") || templates.contains("tool_use");
  result->takes_tool_calls_ = AnyMentions(templates, "tool_calls");
  Process& process = *result->process_;
  process.config = config;
  process.has_template = !templates.empty();
  process.setup = Line({{"templates", std::move(templates)},
                        {"variables", SpecialTokens(document)},
                        {"limits",
                         {{"memory_bytes", config.memory_bytes},
                          {"output_bytes", config.max_output_bytes},
                          {"seconds", config.timeout_seconds}}}});
  if (process.has_template) {
    const absl::MutexLock lock(&process.mutex);
    // Render tries again.
    if (const absl::Status started = process.Start(); !started.ok()) {
      spdlog::warn("no chats: {}", Std(started.message()));
    }
  }
  return result;
}

absl::StatusOr<std::string> ChatTemplate::Render(
    const ordered_json& messages, const ordered_json& tools,
    const ordered_json& variables) {
  if (!process_->has_template) {
    return absl::FailedPreconditionError(
        "the model has no chat template: neither chat_template in "
        "tokenizer_config.json nor chat_template.jinja");
  }
  if (!messages.is_array()) {
    return absl::InvalidArgumentError("messages: must be an array");
  }
  const std::string request =
      Line({{"messages", messages},
            {"tools", tools},
            {"variables",
             variables.is_object() ? variables : ordered_json::object()}});
  const absl::MutexLock lock(&process_->mutex);
  ASSIGN_OR_RETURN(const std::string answer, process_->Ask(request));
  return process_->Text(answer);
}

}  // namespace bullpen
