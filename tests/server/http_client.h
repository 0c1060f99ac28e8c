#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"

namespace bullpen {

struct ClientResponse {
  int status = 0;  // 0: the connection ended before an answer
  std::map<std::string, std::string> headers;  // lower-case names
  std::string body;                            // chunks joined
  nlohmann::json json() const;
  // The data of each server-sent event, comments left out.
  std::vector<std::string> events() const;
};

// A blocking HTTP client on loopback that also does what clients should not:
// it writes raw bytes, and reads when it likes. Gives up after 20 s.
class HttpClient {
 public:
  explicit HttpClient(uint16_t port, int receive_buffer_bytes = 0);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  bool Send(std::string_view bytes);  // false: the server has closed
  // The next response of the connection.
  ClientResponse Receive();
  // Reads until `text` has come, which may be in mid-response.
  bool ReceiveUntil(std::string_view text);
  // Whether the server closes without sending anything more.
  bool ReceiveEnd();
  void Close();

  ClientResponse Get(std::string_view path, std::string_view headers = "");
  ClientResponse Post(std::string_view path, std::string_view body,
                      std::string_view headers = "");

 private:
  bool More();
  std::string Line();
  std::string Bytes(size_t count);

  int socket_;
  std::string unread_;
};

std::string PostText(std::string_view path, std::string_view body,
                     std::string_view headers = "");

}  // namespace bullpen
