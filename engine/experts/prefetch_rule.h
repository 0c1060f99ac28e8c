#pragma once

#include <cstdint>

namespace bullpen {

// How much may be loaded ahead, and how sure a guess must be: what the link can
// move until the layer runs, judged by the steps of late. Pure: the caller
// measures; the live engine and the trace simulator share it. One thread.
class PrefetchRule {
 public:
  // Of one decode step of all layers.
  struct Step {
    double seconds = 0;
    double stall_seconds = 0;  // of these: waiting for experts
    double busy_seconds = 0;   // of the link
    int64_t bytes = 0;         // that it moved
    int32_t layers = 0;
    // Loads by guesses that were used: by their probabilities, and in fact.
    double uses_expected = 0;
    double uses = 0;
  };
  void EndStep(const Step& step);

  // Bytes of further guesses for a layer `horizon` layers ahead, when those of
  // `under_way` are ahead of them.
  double Room(int32_t horizon, int64_t blob_bytes, int64_t under_way) const;
  // Half of an expert at least must arrive in time: less is hardly worth that a
  // demand waits for the chunk of a wrong guess.
  static bool Fits(int64_t blob_bytes, double room) {
    return 2 * room >= static_cast<double>(blob_bytes);
  }
  // The busier the link, the surer a guess must be that uses it; and where
  // those loaded of late were used less than they promised, by so much more.
  double LeastProbability(double on_an_idle_link) const;

 private:
  // Decayed; 0: not known.
  double link_rate_ = 0;      // bytes a second, while it moves any
  double layer_seconds_ = 0;  // that a layer computes
  double link_use_ = 0;       // share of the time in which the link is busy
  double uses_expected_ = 0;  // these two are decayed sums
  double uses_ = 0;
};

}  // namespace bullpen
