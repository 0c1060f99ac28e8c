#include "bench/serve/http_transport.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_join.h"
#include "base/status.h"
#include "base/strings.h"
#include "bench/serve/event_parser.h"

namespace bullpen::bench {
namespace {

constexpr int kSilenceMs = 60'000;  // for longer: the server hangs
constexpr size_t kReadBytes = 64 << 10;

// An owned socket, connected over TCP.
class Socket {
 public:
  static absl::StatusOr<Socket> Connect(const std::string& host,
                                        const std::string& port) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
      return absl::NotFoundError(absl::StrCat("no address for ", host));
    }
    Socket made(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const bool connected = made.fd_ >= 0 && connect(made.fd_, found->ai_addr,
                                                    found->ai_addrlen) == 0;
    freeaddrinfo(found);
    if (!connected) {
      return absl::UnavailableError(absl::StrCat(
          "cannot connect to ", host, ":", port, ": ", std::strerror(errno)));
    }
    const int on = 1;
    setsockopt(made.fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return made;
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }

  int fd() const { return fd_; }

  absl::Status SendAll(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) {
        return absl::UnavailableError(
            absl::StrCat("send: ", std::strerror(errno)));
      }
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return absl::OkStatus();
  }

 private:
  explicit Socket(int fd) : fd_(fd) {}

  int fd_;
};

// One kept-alive connection and the stream that it carries now.
struct Lane {
  Socket socket;
  EventParser parser{};
  StreamTimes times{};
  bool busy = false;
};

class HttpTransport final : public Transport {
 public:
  HttpTransport(std::string host, std::string port)
      : host_(std::move(host)), port_(std::move(port)) {}

  std::string_view name() const override { return "http"; }

  absl::StatusOr<LoadTimes> Run(const LoadConfig& config) override {
    std::vector<Lane> lanes;
    for (int32_t i = 0; i < config.parallel; ++i) {
      ASSIGN_OR_RETURN(Socket socket, Socket::Connect(host_, port_));
      lanes.push_back({.socket = std::move(socket)});
    }
    LoadTimes load;
    load.begin = Clock::now();
    int32_t sent = 0;
    for (Lane& lane : lanes) {
      if (sent < config.requests) {
        RETURN_IF_ERROR(Send(config, sent++, lane));
      }
    }
    while (load.streams.size() < static_cast<size_t>(config.requests)) {
      RETURN_IF_ERROR(Wait(lanes));
      for (Lane& lane : lanes) {
        if (!lane.busy) continue;
        RETURN_IF_ERROR(Receive(lane));
        if (!lane.parser.done()) continue;
        lane.busy = false;
        lane.times.tokens = lane.parser.completion_tokens();
        load.streams.push_back(std::move(lane.times));
        if (sent < config.requests) {
          RETURN_IF_ERROR(Send(config, sent++, lane));
        }
      }
    }
    load.end = Clock::now();
    return load;
  }

 private:
  absl::Status Send(const LoadConfig& config, int32_t index, Lane& lane) const {
    const std::string body = absl::StrCat(
        R"({"prompt":[)", absl::StrJoin(PromptIds(config, index), ","),
        R"(],"max_tokens":)", config.max_tokens,
        R"(,"temperature":0,"ignore_eos":true,"stream":true,)",
        R"("stream_options":{"include_usage":true}})");
    lane.parser = EventParser();
    lane.times = {.sent = Clock::now()};
    lane.busy = true;
    return lane.socket.SendAll(absl::StrCat(
        "POST /v1/completions HTTP/1.1\r\nHost: ", host_, ":", port_,
        "\r\nContent-Type: application/json\r\nContent-Length: ", body.size(),
        "\r\n\r\n", body));
  }

  // Until at least one busy lane has something to read.
  static absl::Status Wait(const std::vector<Lane>& lanes) {
    std::vector<pollfd> sockets;
    for (const Lane& lane : lanes) {
      if (lane.busy) sockets.push_back({lane.socket.fd(), POLLIN, 0});
    }
    if (poll(sockets.data(), sockets.size(), kSilenceMs) == 0) {
      return absl::DeadlineExceededError(
          absl::StrCat("no stream moved for ", kSilenceMs, " ms"));
    }
    return absl::OkStatus();
  }

  static absl::Status Receive(Lane& lane) {
    char buffer[kReadBytes];
    const ssize_t count =
        recv(lane.socket.fd(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
      return absl::OkStatus();
    }
    if (count <= 0) {
      return absl::UnavailableError("the server closed a stream");
    }
    ASSIGN_OR_RETURN(const int events,
                     lane.parser.Feed({buffer, static_cast<size_t>(count)}));
    if (events > 0) {
      // Those that came in one read are seen at one moment.
      lane.times.events.insert(lane.times.events.end(), events, Clock::now());
    }
    return absl::OkStatus();
  }

  std::string host_;
  std::string port_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeHttpTransport(
    const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  const size_t colon = url.rfind(':');
  if (!url.starts_with(kScheme) || colon < kScheme.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--url must be http://HOST:PORT, got '", url, "'"));
  }
  std::string host = url.substr(kScheme.size(), colon - kScheme.size());
  return std::make_unique<HttpTransport>(std::move(host),
                                         url.substr(colon + 1));
}

}  // namespace bullpen::bench
