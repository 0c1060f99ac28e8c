#include "tests/server/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>

#include "base/check.h"
#include "base/strings.h"

namespace bullpen {

nlohmann::json ClientResponse::json() const {
  return nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
}

std::vector<std::string> ClientResponse::events() const {
  std::vector<std::string> events;
  size_t begin = 0;
  while (true) {
    const size_t end = body.find("\n\n", begin);
    if (end == std::string::npos) return events;
    const std::string event = body.substr(begin, end - begin);
    if (event.starts_with("data: ")) events.push_back(event.substr(6));
    begin = end + 2;
  }
}

HttpClient::HttpClient(uint16_t port, int receive_buffer_bytes)
    : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const timeval patience{.tv_sec = 20, .tv_usec = 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (receive_buffer_bytes > 0) {
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes,
                 sizeof(receive_buffer_bytes));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(::connect(socket_, reinterpret_cast<sockaddr*>(&address),
                  sizeof(address)) == 0)
      << "cannot connect to port " << port;
}

HttpClient::~HttpClient() { Close(); }

void HttpClient::Close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

bool HttpClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent =
        ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool HttpClient::More() {
  char bytes[16384];
  const ssize_t count = ::recv(socket_, bytes, sizeof(bytes), 0);
  if (count <= 0) return false;
  unread_.append(bytes, static_cast<size_t>(count));
  return true;
}

std::string HttpClient::Line() {
  size_t end = 0;
  while ((end = unread_.find("\r\n")) == std::string::npos) {
    if (!More()) return "";
  }
  std::string line = unread_.substr(0, end);
  unread_.erase(0, end + 2);
  return line;
}

std::string HttpClient::Bytes(size_t count) {
  while (unread_.size() < count) {
    if (!More()) break;
  }
  std::string bytes = unread_.substr(0, count);
  unread_.erase(0, count);
  return bytes;
}

ClientResponse HttpClient::Receive() {
  ClientResponse response;
  const std::string status = Line();
  if (!status.starts_with("HTTP/1.")) return response;
  response.status = std::stoi(status.substr(9, 3));
  for (std::string line = Line(); !line.empty(); line = Line()) {
    const size_t colon = line.find(": ");
    std::string name = line.substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    response.headers[name] = line.substr(colon + 2);
  }
  if (response.headers.contains("content-length")) {
    response.body = Bytes(std::stoul(response.headers["content-length"]));
  } else if (response.headers.contains("transfer-encoding")) {
    while (true) {
      const std::string size_line = Line();
      if (size_line.empty()) return response;
      const size_t size = std::stoul(size_line, nullptr, 16);
      response.body += Bytes(size);
      Line();
      if (size == 0) break;
    }
  } else if (response.status >= 200 && response.status != 204) {
    while (More()) {
    }
    response.body = std::exchange(unread_, {});
  }
  return response;
}

bool HttpClient::ReceiveUntil(std::string_view text) {
  while (unread_.find(text) == std::string::npos) {
    if (!More()) return false;
  }
  return true;
}

bool HttpClient::ReceiveEnd() {
  char byte = 0;
  return unread_.empty() && ::recv(socket_, &byte, 1, 0) == 0;
}

ClientResponse HttpClient::Get(std::string_view path,
                               std::string_view headers) {
  Send(absl::StrCat("GET ", Absl(path), " HTTP/1.1\r\nHost: test\r\n",
                    Absl(headers), "\r\n"));
  return Receive();
}

ClientResponse HttpClient::Post(std::string_view path, std::string_view body,
                                std::string_view headers) {
  Send(PostText(path, body, headers));
  return Receive();
}

std::string PostText(std::string_view path, std::string_view body,
                     std::string_view headers) {
  return absl::StrCat("POST ", Absl(path),
                      " HTTP/1.1\r\nHost: test\r\n"
                      "Content-Type: application/json\r\nContent-Length: ",
                      body.size(), "\r\n", Absl(headers), "\r\n", Absl(body));
}

}  // namespace bullpen
