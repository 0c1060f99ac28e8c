#include "tools/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/strings.h"
#include "spdlog/spdlog.h"

namespace bullpen {
namespace {

constexpr int kBarWidth = 40;

}  // namespace

Progress::Progress(std::string what, Unit unit)
    : what_(std::move(what)),
      unit_(unit),
      terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() { Finish(); }

void Progress::Finish() {
  if (terminal_ && shown_ >= 0) std::fputc('\n', stderr);
  shown_ = -1;
}

std::string Progress::Amount(int64_t amount) const {
  return unit_ == Unit::kBytes ? FormatBytes(amount) : absl::StrCat(amount);
}

void Progress::Update(int64_t done, int64_t total) {
  const double share =
      total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1.0;
  const int step =
      static_cast<int>(std::clamp(share, 0.0, 1.0) * (terminal_ ? 100 : 10));
  if (step == shown_) return;
  shown_ = step;
  Draw(done, total);
}

void Progress::Draw(int64_t done, int64_t total) {
  if (!terminal_) {
    spdlog::info("{}: {} of {}", what_, Amount(done), Amount(total));
    return;
  }
  const int filled = shown_ * kBarWidth / 100;
  const std::string bar =
      std::string(filled, '#') + std::string(kBarWidth - filled, '.');
  std::fprintf(stderr, "\r%s [%s] %3d %% of %s ", what_.c_str(), bar.c_str(),
               shown_, Amount(total).c_str());
  std::fflush(stderr);
}

}  // namespace bullpen
