#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/openai_error.h"

namespace bullpen {

// A request as handlers see it.
struct HttpRequest {
  std::string method = {};
  std::string path = {};  // decoded, without the query
  std::string content_type = {};
  std::string origin = {};  // the page that a browser sends it for
  std::string authorization = {};
  std::string api_key = {};  // the X-Api-Key header
  std::string request_id =
      {};  // the client's if it is a sane one, else made here
  std::string body = {};
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
};

HttpResponse ErrorResponse(const ApiError& error);

// The path of a request target: no scheme, host or query, %XX decoded. Empty
// if it is not well formed.
std::string PathOf(std::string_view target);

// `offered` if it is [A-Za-z0-9_-]{1,64}, else a new random one.
std::string RequestId(std::string_view offered);

// The bytes before the body. `body_bytes` < 0: the body is chunked, or, for
// HTTP/1.0, ends with the connection.
struct HeadArgs {
  int version = 11;
  bool keep_alive = true;
  int64_t body_bytes = 0;
  std::string_view request_id;
};
std::string ResponseHead(const HttpResponse& response, const HeadArgs& args);

// Appends `data` as one chunk of a chunked body. Empty data adds nothing: an
// empty chunk would end the body.
void AppendChunk(std::string& out, std::string_view data);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace bullpen
