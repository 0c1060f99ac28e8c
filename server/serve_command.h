#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "server/load_service.h"
#include "tools/options.h"

namespace bullpen {

struct ServeFlags {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;
  uint16_t grpc_port = 50051;
  std::string served_model_name;
  std::filesystem::path api_key_file;
  bool open_metrics = false;
  int32_t max_queue = 256;
  Bytes max_body = {int64_t{8} << 20};
  double drain_timeout = 25;
  std::filesystem::path record_routing;
  bool record_token_ids = false;
  std::string python;

  // Lists every field once: names, defaults, help and parsing follow from it.
  template <typename Visitor>
  void ForEach(Visitor&& visit) {
    visit("host", host, "address to listen on; 0.0.0.0 for all");
    visit("port", port, "port of HTTP; 0: any free one");
    visit("grpc_port", grpc_port, "port of gRPC; 0: any free one");
    visit("served_model_name", served_model_name,
          "the model's name in the API; unset: its directory's");
    visit("api_key_file", api_key_file,
          "file with the keys that clients may use, one a line; unset: open "
          "to all");
    visit("open_metrics", open_metrics, "/metrics asks for no key");
    visit("max_queue", max_queue, "requests that may wait; more are refused");
    visit("max_body", max_body, "size of one request's body");
    visit("drain_timeout", drain_timeout,
          "seconds that running work has to finish after SIGTERM; what is "
          "finished has 5 more to be written");
    visit("record_routing", record_routing,
          "directory for traces of which experts each token used (never text); "
          "unset: none");
    visit("record_token_ids", record_token_ids,
          "write the ids of tokens too, which tell their text");
    visit("python", python,
          "the interpreter with jinja2 that renders chat templates");
  }
};

// `bullpen serve [MODEL]`: HTTP and gRPC until SIGTERM or SIGINT. The parser
// writes into this object, which stays where it is.
class ServeCommand {
 public:
  ServeCommand(CLI::App& app, const Environment& environment, Command& chosen);
  ServeCommand(const ServeCommand&) = delete;

 private:
  absl::Status Run();

  std::string version_;
  ServeFlags flags_;
  LoadOptions load_;
};

}  // namespace bullpen
