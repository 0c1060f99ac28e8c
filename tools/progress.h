#pragma once

#include <cstdint>
#include <string>

namespace bullpen {

// Shows how far a long piece of work is on standard error: a bar that redraws
// itself on a terminal, a log line each tenth elsewhere. One thread.
class Progress {
 public:
  enum class Unit { kBytes, kCount };

  explicit Progress(std::string what, Unit unit = Unit::kBytes);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Update(int64_t done, int64_t total);
  // Ends the bar's line, so that other output may follow.
  void Finish();

 private:
  void Draw(int64_t done, int64_t total);
  std::string Amount(int64_t amount) const;

  std::string what_;
  Unit unit_;
  bool terminal_;
  int shown_ = -1;  // percent on a terminal, tenths elsewhere
};

}  // namespace bullpen
