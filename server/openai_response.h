#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/tokenizer.h"
#include "server/openai_choice.h"
#include "server/openai_error.h"

namespace bullpen {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
};

// What every body and chunk of one response says.
struct ResponseFacts {
  bool chat = false;
  std::string id;
  int64_t created = 0;
  std::string model;
  bool logprobs = false;
  bool include_usage = false;  // chunks: a usage field on each
};

// A choice of a whole response.
struct WholeChoice {
  std::string text;
  std::vector<PlacedToken> tokens;
  std::string_view finish_reason;
};

// Writes OpenAI's response objects. What does not change from chunk to chunk is
// written once, here; a chunk then costs a few appends.
class ResponseWriter {
 public:
  ResponseWriter(ResponseFacts facts, const Tokenizer& tokenizer);

  // Server-sent events. Each appends whole events to `out`.
  void Role(std::string& out, int32_t index) const;
  void Delta(std::string& out, int32_t index, const ChoiceDelta& delta) const;
  void Finish(std::string& out, int32_t index, std::string_view reason) const;
  void UsageChunk(std::string& out, const Usage& usage) const;
  static void Error(std::string& out, const ApiError& error);
  static void Done(std::string& out);

  // The one body of a response that is not streamed.
  std::string Whole(std::span<const WholeChoice> choices,
                    const Usage& usage) const;

 private:
  void BeginChunk(std::string& out, int32_t index) const;
  void EndChunk(std::string& out, std::string_view finish_reason) const;
  void AppendLogprobs(std::string& out,
                      std::span<const PlacedToken> tokens) const;
  void AppendChatLogprobs(std::string& out,
                          std::span<const PlacedToken> tokens) const;
  void AppendTextLogprobs(std::string& out,
                          std::span<const PlacedToken> tokens) const;
  void AppendChatToken(std::string& out, int32_t id, float logprob) const;
  void AppendTopObject(std::string& out, const TokenEvent& event) const;
  std::string TokenName(int32_t id) const;

  ResponseFacts facts_;
  const Tokenizer& tokenizer_;
  std::string head_;        // {"id":...,"model":"...","choices":[
  std::string chunk_head_;  // data: {... {"index":
  std::string chunk_tail_;  // }]...}\n\n
};

}  // namespace bullpen
