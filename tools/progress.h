#pragma once

#include <cstdint>
#include <string>

namespace bullpen {

// Shows how far a long piece of work is on standard error: a bar that redraws
// itself on a terminal, a log line each tenth elsewhere. One thread.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Update(int64_t done, int64_t total);

 private:
  void Draw(int64_t done, int64_t total);

  std::string what_;
  bool terminal_;
  int shown_ = -1;  // percent on a terminal, tenths elsewhere
};

}  // namespace bullpen
