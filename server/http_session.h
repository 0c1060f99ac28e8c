#pragma once

#include <cstdint>

#include "boost/asio/awaitable.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/thread_pool.hpp"
#include "server/http_connections.h"
#include "server/http_server.h"
#include "server/service.h"

namespace bullpen {

// What all connections of a server share.
struct HttpContext {
  Service& service;
  const HttpConfig& config;
  int64_t started = 0;  // Unix time
  boost::asio::thread_pool& workers;
  HttpConnections& connections;
};

// Serves one connection to its end, on the strand that is the socket's
// executor. When it is done no request of it is in the engine any more.
boost::asio::awaitable<void> ServeConnection(
    HttpContext& context, boost::asio::ip::tcp::socket socket);

}  // namespace bullpen
