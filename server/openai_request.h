#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "server/translate.h"

namespace bullpen {

// A body of /v1/completions or /v1/chat/completions: its shape and types are
// checked, the values that ToRequest checks are not yet.
struct OpenAiCall {
  bool chat = false;
  std::string model;                    // empty: the served one
  std::vector<GenerateParams> prompts;  // chat: one, whose text is not set
  std::string max_tokens_name = "max_tokens";  // what the client called it
  int32_t n = 1;                               // choices for each prompt
  bool stream = false;
  bool include_usage = false;
  // Chat: for the template. Contents are strings, or null beside tool calls.
  nlohmann::ordered_json messages;
  nlohmann::ordered_json tools;  // null: none
  nlohmann::ordered_json variables;
};

// InvalidArgument names the field. Fields that clients send by habit and that
// change nothing are accepted; every other field that is not served is an
// error, so that nothing is silently ignored.
absl::StatusOr<OpenAiCall> ParseCompletionCall(
    const nlohmann::ordered_json& body, const RequestLimits& limits);
absl::StatusOr<OpenAiCall> ParseChatCall(const nlohmann::ordered_json& body,
                                         const RequestLimits& limits);

// A list of token ids; InvalidArgument names `field`.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(
    const nlohmann::ordered_json& list, const std::string& field);

}  // namespace bullpen
