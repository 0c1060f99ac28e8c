#include "tools/tokenize_command.h"

#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/model/tokenizer.h"
#include "nlohmann/json.hpp"

namespace bullpen {
namespace {

absl::StatusOr<nlohmann::json> EncodeLine(const Tokenizer& tokenizer,
                                          const nlohmann::json& line,
                                          bool special) {
  if (!line.is_string()) {
    return absl::InvalidArgumentError("expected a JSON string");
  }
  return nlohmann::json(
      tokenizer.Encode(line.get_ref<const std::string&>(), special));
}

absl::StatusOr<nlohmann::json> DecodeLine(const Tokenizer& tokenizer,
                                          const nlohmann::json& line,
                                          bool skip_special) {
  constexpr char kExpected[] = "expected a JSON array of token ids";
  if (!line.is_array()) return absl::InvalidArgumentError(kExpected);
  std::vector<int32_t> ids;
  for (const nlohmann::json& value : line) {
    if (!value.is_number_integer()) {
      return absl::InvalidArgumentError(kExpected);
    }
    const int64_t id = value.get<int64_t>();
    if (id < 0 || id >= tokenizer.vocab_size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token id ", value.dump(), " is not in the vocabulary of ",
          tokenizer.vocab_size()));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return nlohmann::json(tokenizer.Decode(ids, skip_special));
}

}  // namespace

TokenizeCommand::TokenizeCommand(CLI::App& app, const Environment& environment,
                                 Command& chosen)
    : model_(environment.default_model) {
  CLI::App* command = app.add_subcommand(
      "tokenize",
      "Turn JSON strings (one a line, standard input) into token ids");
  command->add_option("MODEL", model_, "a directory with a tokenizer.json")
      ->capture_default_str();
  command->add_flag("--special", special_,
                    "add the special tokens that a prompt starts with");
  command->add_flag("--decode", decode_,
                    "the reverse: arrays of ids in, JSON strings out");
  command->add_flag("--skip-special", skip_special_,
                    "with --decode: leave special tokens out");
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status TokenizeCommand::Run() const {
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   Tokenizer::FromDirectory(model_));
  std::string text;
  for (int64_t number = 1; std::getline(std::cin, text); ++number) {
    // The parser refuses text that is not UTF-8.
    const nlohmann::json line =
        nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    const absl::StatusOr<nlohmann::json> answer =
        line.is_discarded()
            ? absl::InvalidArgumentError("not valid JSON")
            : (decode_ ? DecodeLine(*tokenizer, line, skip_special_)
                       : EncodeLine(*tokenizer, line, special_));
    if (!answer.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "line ", number, " of standard input: ", answer.status().message()));
    }
    std::cout << answer->dump() << '\n';
  }
  std::cout.flush();
  if (!std::cout) return absl::DataLossError("cannot write standard output");
  return absl::OkStatus();
}

}  // namespace bullpen
