#include "server/sampling_flags.h"

namespace bullpen {

void AddSamplingFlags(CLI::App& app, SamplingFlags& flags) {
  app.add_option("-n,--max-tokens", flags.max_tokens,
                 "tokens to generate; unset: to the end of the context");
  app.add_option("--temperature", flags.temperature,
                 "0: always the likeliest token; unset: the model's own");
  app.add_option("--top-k", flags.top_k, "only the K likeliest tokens; 0: all");
  app.add_option("--top-p", flags.top_p,
                 "only the likeliest tokens that make up this share");
  app.add_option("--min-p", flags.min_p,
                 "only tokens at least this likely beside the likeliest");
  app.add_option("--seed", flags.seed,
                 "the same seed gives the same tokens; unset: at random");
  app.add_option("--repetition-penalty", flags.repetition_penalty,
                 "makes tokens that were there less likely; 1: off");
  app.add_option("--stop", flags.stop,
                 "end before this text; may be given more than once")
      ->allow_extra_args(false);
}

void SetSampling(const SamplingFlags& flags, GenerateParams& params) {
  params.max_tokens = flags.max_tokens;
  params.temperature = flags.temperature;
  params.top_k = flags.top_k;
  params.top_p = flags.top_p;
  params.min_p = flags.min_p;
  params.seed = flags.seed;
  params.repetition_penalty = flags.repetition_penalty;
  params.stop = flags.stop;
}

}  // namespace bullpen
