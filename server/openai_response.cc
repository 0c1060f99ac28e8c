#include "server/openai_response.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "server/openai_json.h"

namespace bullpen {
namespace {

void AppendUsage(std::string& out, const Usage& usage) {
  absl::StrAppend(&out, R"("usage":{"prompt_tokens":)", usage.prompt_tokens,
                  R"(,"completion_tokens":)", usage.completion_tokens,
                  R"(,"total_tokens":)",
                  usage.prompt_tokens + usage.completion_tokens, "}");
}

std::string Head(const ResponseFacts& facts, std::string_view object) {
  std::string out = R"({"id":)";
  AppendJsonString(out, facts.id);
  out += R"(,"object":)";
  AppendJsonString(out, object);
  absl::StrAppend(&out, R"(,"created":)", facts.created, R"(,"model":)");
  AppendJsonString(out, facts.model);
  out += R"(,"choices":[)";
  return out;
}

}  // namespace

ResponseWriter::ResponseWriter(ResponseFacts facts, const Tokenizer& tokenizer)
    : facts_(std::move(facts)), tokenizer_(tokenizer) {
  head_ = Head(facts_, facts_.chat ? "chat.completion" : "text_completion");
  chunk_head_ = "data: " + Head(facts_, facts_.chat ? "chat.completion.chunk"
                                                    : "text_completion");
  chunk_tail_ = facts_.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n";
}

void ResponseWriter::BeginChunk(std::string& out, int32_t index) const {
  out += chunk_head_;
  absl::StrAppend(&out, R"({"index":)", index);
}

void ResponseWriter::EndChunk(std::string& out,
                              std::string_view finish_reason) const {
  if (finish_reason.empty()) {
    out += R"(,"finish_reason":null)";
  } else {
    absl::StrAppend(&out, R"(,"finish_reason":")", Absl(finish_reason), "\"");
  }
  out += chunk_tail_;
}

void ResponseWriter::Role(std::string& out, int32_t index) const {
  if (!facts_.chat) return;
  BeginChunk(out, index);
  out += R"(,"delta":{"role":"assistant","content":""},"logprobs":null)";
  EndChunk(out, "");
}

void ResponseWriter::Delta(std::string& out, int32_t index,
                           const ChoiceDelta& delta) const {
  BeginChunk(out, index);
  out += facts_.chat ? R"(,"delta":{"content":)" : R"(,"text":)";
  AppendJsonString(out, delta.text);
  if (facts_.chat) out += '}';
  AppendLogprobs(out, delta.tokens);
  EndChunk(out, "");
}

void ResponseWriter::Finish(std::string& out, int32_t index,
                            std::string_view reason) const {
  BeginChunk(out, index);
  out += facts_.chat ? R"(,"delta":{},"logprobs":null)"
                     : R"(,"text":"","logprobs":null)";
  EndChunk(out, reason);
}

void ResponseWriter::UsageChunk(std::string& out, const Usage& usage) const {
  out += chunk_head_;
  out += "],";
  AppendUsage(out, usage);
  out += "}\n\n";
}

void ResponseWriter::Error(std::string& out, const ApiError& error) {
  out += "data: ";
  out += ErrorJson(error);
  out += "\n\n";
}

void ResponseWriter::Done(std::string& out) { out += "data: [DONE]\n\n"; }

std::string ResponseWriter::Whole(std::span<const WholeChoice> choices,
                                  const Usage& usage) const {
  std::string out = head_;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += ',';
    absl::StrAppend(&out, R"({"index":)", i);
    out += facts_.chat ? R"(,"message":{"role":"assistant","content":)"
                       : R"(,"text":)";
    AppendJsonString(out, choices[i].text);
    if (facts_.chat) out += R"(,"refusal":null})";
    AppendLogprobs(out, choices[i].tokens);
    absl::StrAppend(&out, R"(,"finish_reason":")",
                    Absl(choices[i].finish_reason), "\"}");
  }
  out += "],";
  AppendUsage(out, usage);
  out += '}';
  return out;
}

void ResponseWriter::AppendLogprobs(std::string& out,
                                    std::span<const PlacedToken> tokens) const {
  out += R"(,"logprobs":)";
  if (!facts_.logprobs) {
    out += "null";
  } else if (facts_.chat) {
    AppendChatLogprobs(out, tokens);
  } else {
    AppendTextLogprobs(out, tokens);
  }
}

void ResponseWriter::AppendChatToken(std::string& out, int32_t id,
                                     float logprob) const {
  const std::string bytes = tokenizer_.TokenBytes(id);
  out += R"({"token":)";
  AppendJsonString(out, bytes);
  out += R"(,"logprob":)";
  AppendJsonNumber(out, logprob);
  out += R"(,"bytes":[)";
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out += ',';
    absl::StrAppend(&out, static_cast<int>(static_cast<uint8_t>(bytes[i])));
  }
  out += ']';
}

void ResponseWriter::AppendChatLogprobs(
    std::string& out, std::span<const PlacedToken> tokens) const {
  out += R"({"content":[)";
  for (size_t i = 0; i < tokens.size(); ++i) {
    const TokenEvent& event = tokens[i].event;
    if (i > 0) out += ',';
    AppendChatToken(out, event.id, event.logprob.value_or(0));
    out += R"(,"top_logprobs":[)";
    for (size_t k = 0; k < event.top.size(); ++k) {
      if (k > 0) out += ',';
      AppendChatToken(out, event.top[k].id, event.top[k].logprob);
      out += '}';
    }
    out += "]}";
  }
  out += R"(],"refusal":null})";
}

void ResponseWriter::AppendTextLogprobs(
    std::string& out, std::span<const PlacedToken> tokens) const {
  const auto list = [&](std::string_view name, auto append) {
    absl::StrAppend(&out, "\"", Absl(name), "\":[");
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out += ',';
      append(tokens[i]);
    }
    out += ']';
  };
  out += '{';
  list("tokens", [&](const PlacedToken& token) {
    AppendJsonString(out, TokenName(token.event.id));
  });
  out += ',';
  list("token_logprobs", [&](const PlacedToken& token) {
    if (token.event.logprob.has_value()) {
      AppendJsonNumber(out, *token.event.logprob);
    } else {
      out += "null";
    }
  });
  out += ',';
  list("top_logprobs",
       [&](const PlacedToken& token) { AppendTopObject(out, token.event); });
  out += ',';
  list("text_offset", [&](const PlacedToken& token) {
    absl::StrAppend(&out, token.text_offset);
  });
  out += '}';
}

// The likeliest tokens, and the one that was taken; OpenAI keys them by text,
// so of two with the same text only the likelier is told.
void ResponseWriter::AppendTopObject(std::string& out,
                                     const TokenEvent& event) const {
  if (!event.logprob.has_value()) {
    out += "null";
    return;
  }
  std::vector<std::string> names;
  out += '{';
  const auto add = [&](int32_t id, float logprob) {
    std::string name = TokenName(id);
    if (std::find(names.begin(), names.end(), name) != names.end()) return;
    if (!names.empty()) out += ',';
    AppendJsonString(out, name);
    out += ':';
    AppendJsonNumber(out, logprob);
    names.push_back(std::move(name));
  };
  for (const TokenLogprob& top : event.top) add(top.id, top.logprob);
  add(event.id, *event.logprob);
  out += '}';
}

// As OpenAI spells tokens that are parts of a character: bytes:\xe4\xbd.
std::string ResponseWriter::TokenName(int32_t id) const {
  std::string bytes = tokenizer_.TokenBytes(id);
  if (IsValidUtf8(bytes)) return bytes;
  std::string name = "bytes:";
  for (const char c : bytes) {
    absl::StrAppend(&name, "\\x",
                    absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad2));
  }
  return name;
}

}  // namespace bullpen
