#include "base/cpu_affinity.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace bullpen {
namespace {

constexpr int32_t kMaxCpus = 1 << 16;

// cpu_set_t ends at 1,024 CPUs; larger machines exist.
class CpuSet {
 public:
  explicit CpuSet(int32_t cpus)
      : cpus_(cpus), set_(CPU_ALLOC(cpus)), bytes_(CPU_ALLOC_SIZE(cpus)) {
    CPU_ZERO_S(bytes_, set_.get());
  }

  void Add(int32_t cpu) { CPU_SET_S(cpu, bytes_, set_.get()); }
  bool Has(int32_t cpu) const { return CPU_ISSET_S(cpu, bytes_, set_.get()); }
  int32_t cpus() const { return cpus_; }
  size_t bytes() const { return bytes_; }
  cpu_set_t* get() const { return set_.get(); }

 private:
  struct Free {
    void operator()(cpu_set_t* set) const { CPU_FREE(set); }
  };
  int32_t cpus_;
  std::unique_ptr<cpu_set_t, Free> set_;
  size_t bytes_;
};

std::vector<int32_t> CpusOfThread() {
  for (int32_t most = CPU_SETSIZE; most <= kMaxCpus; most *= 2) {
    const CpuSet set(most);
    if (sched_getaffinity(0, set.bytes(), set.get()) != 0) {
      if (errno == EINVAL) continue;  // The kernel's set is larger.
      break;
    }
    std::vector<int32_t> cpus;
    for (int32_t cpu = 0; cpu < set.cpus(); ++cpu) {
      if (set.Has(cpu)) cpus.push_back(cpu);
    }
    if (!cpus.empty()) return cpus;
  }
  return {0};
}

}  // namespace

const std::vector<int32_t>& AllowedCpus() {
  // Never destroyed: a thread may still ask while the process ends.
  static const auto& allowed = *new std::vector<int32_t>(CpusOfThread());
  return allowed;
}

void RestrictThread(std::span<const int32_t> cpus) {
  if (cpus.empty()) return;
  CpuSet set(*std::ranges::max_element(cpus) + 1);
  for (const int32_t cpu : cpus) set.Add(cpu);
  sched_setaffinity(0, set.bytes(), set.get());
}

}  // namespace bullpen
