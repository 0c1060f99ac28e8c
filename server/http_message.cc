#include "server/http_message.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/strings.h"

namespace bullpen {
namespace {

std::string_view Reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Unknown";
  }
}

std::optional<int> HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

bool IsSaneId(std::string_view id) {
  const auto sane = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !id.empty() && id.size() <= 64 &&
         std::all_of(id.begin(), id.end(), sane);
}

}  // namespace

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response{.status = error.http_status, .body = ErrorJson(error)};
  if (error.retry_after_seconds.has_value()) {
    response.headers.emplace_back("Retry-After",
                                  std::to_string(*error.retry_after_seconds));
  }
  if (error.retry_is_useless) {
    response.headers.emplace_back("x-should-retry", "false");
  }
  if (error.http_status == 401) {
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
  }
  return response;
}

std::string PathOf(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!target.starts_with(scheme)) continue;
    const size_t slash = target.find('/', scheme.size());
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  target = target.substr(0, target.find_first_of("?#"));
  std::string path;
  for (size_t i = 0; i < target.size(); ++i) {
    if (target[i] != '%') {
      path += target[i];
      continue;
    }
    if (i + 2 >= target.size()) return "";
    const std::optional<int> high = HexDigit(target[i + 1]);
    const std::optional<int> low = HexDigit(target[i + 2]);
    if (!high.has_value() || !low.has_value()) return "";
    path += static_cast<char>(*high << 4 | *low);
    i += 2;
  }
  return IsValidUtf8(path) ? path : "";
}

std::string RequestId(std::string_view offered) {
  if (IsSaneId(offered)) return std::string(offered);
  static constexpr char kHex[] = "0123456789abcdef";
  std::random_device device;
  std::string id;
  for (int word = 0; word < 3; ++word) {
    uint32_t bits = device();
    for (int digit = 0; digit < 8; ++digit, bits >>= 4) id += kHex[bits & 15];
  }
  return id;
}

std::string ResponseHead(const HttpResponse& response, const HeadArgs& args) {
  std::string head = absl::StrCat(
      args.version == 10 ? "HTTP/1.0 " : "HTTP/1.1 ", response.status, " ",
      Absl(Reason(response.status)), "\r\nServer: bullpen\r\nDate: ",
      absl::FormatTime("%a, %d %b %E4Y %H:%M:%S GMT", absl::Now(),
                       absl::UTCTimeZone()),
      "\r\nx-request-id: ", Absl(args.request_id), "\r\n");
  if (response.status != 204) {
    absl::StrAppend(&head, "Content-Type: ", response.content_type, "\r\n");
    if (args.body_bytes >= 0) {
      absl::StrAppend(&head, "Content-Length: ", args.body_bytes, "\r\n");
    } else if (args.version != 10) {
      head += "Transfer-Encoding: chunked\r\n";
    }
  }
  for (const auto& [name, value] : response.headers) {
    absl::StrAppend(&head, name, ": ", value, "\r\n");
  }
  if (!args.keep_alive) {
    head += "Connection: close\r\n";
  } else if (args.version == 10) {
    head += "Connection: keep-alive\r\n";
  }
  head += "\r\n";
  return head;
}

void AppendChunk(std::string& out, std::string_view data) {
  if (data.empty()) return;
  absl::StrAppend(&out, absl::Hex(data.size()), "\r\n", Absl(data), "\r\n");
}

}  // namespace bullpen
