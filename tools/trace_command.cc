#include "tools/trace_command.h"

#include "base/file.h"
#include "base/status.h"
#include "base/strings.h"
#include "engine/experts/trace_file.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

constexpr int32_t kMaxTopK = 255;

absl::Status WriteBinary(const RoutingTrace& trace,
                         const std::filesystem::path& path) {
  if (trace.top_k() > kMaxTopK) {
    return absl::InvalidArgumentError(
        absl::StrCat("a token of the trace chose ", trace.top_k(),
                     " experts; the binary form holds up to ", kMaxTopK));
  }
  std::vector<int64_t> expert_bytes;
  for (int32_t l = 0; l < trace.layers(); ++l) {
    expert_bytes.push_back(trace.expert_bytes(l));
  }
  ASSIGN_OR_RETURN(TraceWriter writer,
                   TraceWriter::Create(path, {.experts = trace.experts(),
                                              .expert_bytes = expert_bytes,
                                              .token_ids = trace.vocab() > 0}));
  for (const RoutingTrace::Choice& choice : trace.choices()) {
    writer.Add(choice, trace.chosen(choice), trace.weights(choice));
  }
  return writer.Close();
}

}  // namespace

TraceCommand::TraceCommand(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand(
      "trace", "Write a routing trace in its other form, binary or CSV");
  command->add_option("IN", in_, "the trace to read, either form")->required();
  command
      ->add_option("OUT", out_,
                   "the new file: CSV if its name ends in .csv, else binary")
      ->required();
  command->callback([this, &chosen] { chosen = [this] { return Run(); }; });
}

absl::Status TraceCommand::Run() const {
  ASSIGN_OR_RETURN(const RoutingTrace trace, ReadTrace(in_));
  if (out_.extension() == ".csv") {
    RETURN_IF_ERROR(WriteNewFile(out_, trace.ToCsv()));
  } else {
    RETURN_IF_ERROR(WriteBinary(trace, out_));
  }
  spdlog::info("wrote {} choices of {} layers to {}", trace.choices().size(),
               trace.layers(), out_.string());
  return absl::OkStatus();
}

}  // namespace bullpen
