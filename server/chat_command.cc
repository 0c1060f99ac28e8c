#include "server/chat_command.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/strings/ascii.h"
#include "base/status.h"
#include "base/strings.h"
#include "nlohmann/json.hpp"
#include "server/local_session.h"

namespace bullpen {
namespace {

void Print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Reads lines of standard input without standard buffers, so that it can wait
// for an interrupt as well.
class LineReader {
 public:
  explicit LineReader(const InterruptEvent& interrupt)
      : interrupt_(interrupt) {}

  // Nothing at the end of input, or when the user interrupts.
  std::optional<std::string> Next() {
    for (;;) {
      const size_t end = pending_.find('\n');
      if (end != std::string::npos) return Cut(end, 1);
      pollfd events[] = {{STDIN_FILENO, POLLIN, 0},
                         {interrupt_.fd(), POLLIN, 0}};
      poll(events, 2, -1);
      if (interrupt_.Take()) return std::nullopt;
      char bytes[4096];
      const ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes));
      if (got > 0) {
        pending_.append(bytes, static_cast<size_t>(got));
      } else if (pending_.empty()) {
        return std::nullopt;
      } else {
        return Cut(pending_.size(), 0);
      }
    }
  }

 private:
  std::string Cut(size_t end, size_t skip) {
    std::string line = pending_.substr(0, end);
    pending_.erase(0, end + skip);
    return line;
  }

  const InterruptEvent& interrupt_;
  std::string pending_;
};

// One conversation: the messages so far, and the model that answers.
class Conversation {
 public:
  Conversation(LocalSession& session, const SamplingFlags& sampling,
               std::string_view system)
      : session_(session), sampling_(sampling), system_(system) {
    Clear();
  }

  void Clear() {
    messages_ = nlohmann::json::array();
    if (!system_.empty()) {
      messages_.push_back({{"role", "system"}, {"content", system_}});
    }
  }

  // Prints the answer as it comes. After an error the message is forgotten.
  absl::Status Say(const std::string& text, const InterruptEvent& interrupt) {
    if (!IsValidUtf8(text)) {
      return absl::InvalidArgumentError("the message is not valid UTF-8");
    }
    messages_.push_back({{"role", "user"}, {"content", text}});
    absl::StatusOr<LocalSession::Outcome> outcome = Answer(interrupt);
    Print("\n");
    if (!outcome.ok()) {
      messages_.erase(messages_.size() - 1);
      return outcome.status();
    }
    messages_.push_back({{"role", "assistant"}, {"content", outcome->text}});
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<LocalSession::Outcome> Answer(
      const InterruptEvent& interrupt) {
    GenerateParams params;
    SetSampling(sampling_, params);
    ASSIGN_OR_RETURN(params.prompt,
                     session_.chat().Render(messages_, nullptr,
                                            {{"add_generation_prompt", true}}));
    params.add_special_tokens = false;
    return session_.Generate(params, Print, &interrupt);
  }

  LocalSession& session_;
  const SamplingFlags& sampling_;
  const std::string system_;
  nlohmann::json messages_;
};

}  // namespace

ChatCommand::ChatCommand(CLI::App& app, const Environment& environment,
                         Command& chosen) {
  load_.model = environment.default_model;
  load_.python = environment.python;
  load_.flags.cache_dir = environment.cache_dir;
  load_.flags.max_sequences = 1;
  CLI::App* command =
      app.add_subcommand("chat", "Talk with a model in this terminal");
  command->add_option("MODEL", load_.model, "model directory")
      ->capture_default_str();
  command->add_option("--system", system_, "the system message");
  command
      ->add_option("--python", load_.python,
                   "the interpreter with jinja2 that renders chat templates")
      ->capture_default_str();
  AddSamplingFlags(*command, sampling_);
  AddFlags(*command, load_.flags, kModelFlagsGroup);
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status ChatCommand::Run() const {
  const InterruptEvent interrupt;
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalSession> session,
                   LocalSession::Load(load_));
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) {
    Print(
        "/clear starts anew, /exit leaves; Ctrl-C ends an answer, or here "
        "the chat.\n");
  }
  Conversation conversation(*session, sampling_, system_);
  LineReader lines(interrupt);
  for (;;) {
    if (terminal) Print("> ");
    const std::optional<std::string> line = lines.Next();
    if (!line.has_value() || *line == "/exit") break;
    if (absl::StripAsciiWhitespace(*line).empty()) continue;
    if (*line == "/clear") {
      conversation.Clear();
      continue;
    }
    const absl::Status status = conversation.Say(*line, interrupt);
    if (status.ok()) continue;
    // A person may go on after an error; a script wants to know of it.
    if (!terminal) return status;
    Print(absl::StrCat("error: ", status.message(), "\n"));
  }
  if (terminal) Print("\n");
  return absl::OkStatus();
}

}  // namespace bullpen
