// Continues a text on a running server and prints it as it comes:
//   client_example HOST:PORT "In the beginning" [MAX_TOKENS]

#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>

#include "clients/cpp/client.h"

int main(int argc, char** argv) {
  int max_tokens = 64;
  if (argc == 4) {
    const std::string_view text = argv[3];
    std::from_chars(text.data(), text.data() + text.size(), max_tokens);
  }
  if (argc < 3 || argc > 4) {
    std::fprintf(stderr, "usage: client_example HOST:PORT PROMPT [TOKENS]\n");
    return 2;
  }
  bullpen::client::Client client(argv[1]);
  bullpen::v1::GenerateRequest request;
  request.set_prompt(argv[2]);
  request.set_max_tokens(max_tokens);
  request.mutable_sampling()->set_temperature(0);
  const auto completion =
      client.Generate(request, [](const bullpen::v1::GenerateResponse& part) {
        std::fputs(part.text().c_str(), stdout);
        std::fflush(stdout);
        return true;
      });
  if (!completion.ok()) {
    std::fprintf(stderr, "%s\n", completion.status().ToString().c_str());
    return 1;
  }
  std::printf("\n");
  return 0;
}
