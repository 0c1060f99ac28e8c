#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bullpen {

struct ChatTemplateConfig {
  std::string python;                         // interpreter that has jinja2
  double timeout_seconds = 5;                 // of one rendering
  int64_t memory_bytes = int64_t{512} << 20;  // of the helper
  int64_t max_output_bytes = int64_t{16} << 20;
};

// Renders a model's chat template in jinja2's sandbox, run by a supervised
// Python process (restarted after a time-out or a death). Any thread.
class ChatTemplate {
 public:
  // Reads tokenizer_config.json (chat_template, special tokens) or
  // chat_template.jinja of `dir`. A model without a template, or a Python
  // without jinja2, is no error here: Render says what is missing.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> FromDirectory(
      const std::filesystem::path& dir, const ChatTemplateConfig& config);
  ~ChatTemplate();

  // `messages` as in the OpenAI API; `tools` may be null; `variables` is an
  // object (add_generation_prompt, enable_thinking ...). InvalidArgument with
  // the template's own message; FailedPrecondition when there is no template,
  // Unimplemented without a helper; DeadlineExceeded / ResourceExhausted for
  // its limits. Templates print tools as JSON, so the order of keys counts: it
  // is kept, and the caller's parsing must keep it too (ordered_json).
  absl::StatusOr<std::string> Render(const nlohmann::ordered_json& messages,
                                     const nlohmann::ordered_json& tools,
                                     const nlohmann::ordered_json& variables);

  // Whether a template's source mentions them: others drop them unseen. True
  // without a template, as Render says what is missing.
  bool takes_tools() const { return takes_tools_; }
  bool takes_tool_calls() const { return takes_tool_calls_; }

 private:
  struct Process;
  ChatTemplate();
  std::unique_ptr<Process> process_;
  bool takes_tools_ = true;
  bool takes_tool_calls_ = true;
};

}  // namespace bullpen
