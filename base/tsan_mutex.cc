// ThreadSanitizer cannot see into the distribution's Abseil, which is built
// without it, and so takes every use of absl::Mutex for a race. In its builds
// these definitions stand before Abseil's own, call them, and tell it the
// order that they give.

#if defined(__SANITIZE_THREAD__)

#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include "absl/base/options.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#define BULLPEN_TEXT_INNER(x) #x
#define BULLPEN_TEXT(x) BULLPEN_TEXT_INNER(x)
// Debian's inline namespaces ("debian3" and so on) have seven letters.
#define BULLPEN_ABSL(name) \
  "_ZN4absl7" BULLPEN_TEXT(ABSL_OPTION_INLINE_NAMESPACE_NAME) name

// Of ThreadSanitizer's runtime, which has no header for them.
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);

namespace {

// Abseil's own function of that mangled name.
template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// While Abseil runs, on whichever thread, it evaluates the conditions of those
// who wait, with the mutex locked: reads in order, which only it knows of.
struct ConditionReads {
  ConditionReads() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~ConditionReads() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static auto* const next = Next<void(Mutex*)>(BULLPEN_ABSL("5Mutex4LockEv"));
  {
    const ConditionReads ignored;
    next(this);
  }
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static auto* const next = Next<void(Mutex*)>(BULLPEN_ABSL("5Mutex6UnlockEv"));
  __tsan_release(this);
  const ConditionReads ignored;
  next(this);
}

void Mutex::Await(const Condition& condition) {
  static auto* const next = Next<void(Mutex*, const Condition&)>(
      BULLPEN_ABSL("5Mutex5AwaitERKNS0_9ConditionE"));
  __tsan_release(this);
  {
    const ConditionReads ignored;
    next(this, condition);
  }
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static auto* const next = Next<bool(Mutex*, const Condition&, Duration)>(
      BULLPEN_ABSL("5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE"));
  __tsan_release(this);
  bool met = false;
  {
    const ConditionReads ignored;
    met = next(this, condition, timeout);
  }
  __tsan_acquire(this);
  return met;
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static auto* const next = Next<bool(Mutex*, const Condition&, Time)>(
      BULLPEN_ABSL("5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE"));
  __tsan_release(this);
  bool met = false;
  {
    const ConditionReads ignored;
    met = next(this, condition, deadline);
  }
  __tsan_acquire(this);
  return met;
}

void CondVar::Wait(Mutex* mutex) {
  static auto* const next =
      Next<void(CondVar*, Mutex*)>(BULLPEN_ABSL("7CondVar4WaitEPNS0_5MutexE"));
  __tsan_release(mutex);
  {
    const ConditionReads ignored;
    next(this, mutex);
  }
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static auto* const next = Next<bool(CondVar*, Mutex*, Duration)>(
      BULLPEN_ABSL("7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE"));
  __tsan_release(mutex);
  bool timed_out = false;
  {
    const ConditionReads ignored;
    timed_out = next(this, mutex, timeout);
  }
  __tsan_acquire(mutex);
  return timed_out;
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static auto* const next = Next<bool(CondVar*, Mutex*, Time)>(
      BULLPEN_ABSL("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE"));
  __tsan_release(mutex);
  bool timed_out = false;
  {
    const ConditionReads ignored;
    timed_out = next(this, mutex, deadline);
  }
  __tsan_acquire(mutex);
  return timed_out;
}

ABSL_NAMESPACE_END
}  // namespace absl

#endif  // __SANITIZE_THREAD__
