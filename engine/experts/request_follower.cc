#include "engine/experts/request_follower.h"

#include <algorithm>

#include "engine/experts/log_odds.h"

namespace bullpen {

RequestFollower::RequestFollower(const RoutingShape& shape, int32_t past)
    : shape_(shape), past_(shape, past) {
  running_.reserve(kMaxRequests);
}

RequestFollower::Running* RequestFollower::Find(int32_t request) {
  const auto found = std::ranges::find(running_, request, &Running::request);
  return found == running_.end() ? nullptr : &*found;
}

void RequestFollower::BeginStep(std::span<const RequestRows> requests,
                                Phase phase) {
  step_.assign(requests.begin(), requests.end());
  std::erase_if(running_, [&](const Running& running) {
    const bool runs =
        std::ranges::count(step_, running.request, &RequestRows::request) > 0;
    if (!runs) past_.Add(running.uses);
    return !runs;
  });
  int32_t rows = 0;
  for (const RequestRows& request : step_) {
    rows = std::max(rows, request.first_row + request.rows);
    if (!request.begins) continue;
    // One that was preempted begins again.
    std::erase_if(running_, [&](const Running& running) {
      return running.request == request.request;
    });
    if (std::ssize(running_) == kMaxRequests) continue;
    running_.push_back(
        {.request = request.request, .uses = ActivationMatrix(shape_)});
  }
  row_odds_.clear();
  if (phase != Phase::kDecode) return;
  row_odds_.resize(static_cast<size_t>(rows));
  bool known = false;
  for (const RequestRows& request : step_) {
    Running* const running = Find(request.request);
    if (running == nullptr) continue;
    if (!running->compared) Compare(*running);
    if (running->odds.empty()) continue;
    known = true;
    std::fill_n(row_odds_.begin() + request.first_row, request.rows,
                running->odds.data());
  }
  if (!known) row_odds_.clear();
}

void RequestFollower::Compare(Running& running) {
  running.compared = true;
  running.odds = past_.Match(running.uses);
  for (float& odds : running.odds) odds = LogOdds(odds);
}

void RequestFollower::Observe(int32_t layer, std::span<const int32_t> chosen) {
  const auto [experts, top_k] = shape_.layers[layer];
  if (experts < 2) return;
  const size_t k = static_cast<size_t>(top_k);
  for (const RequestRows& request : step_) {
    Running* const running = Find(request.request);
    if (running == nullptr) continue;
    running->uses.Add(layer,
                      chosen.subspan(static_cast<size_t>(request.first_row) * k,
                                     static_cast<size_t>(request.rows) * k));
  }
}

void RequestFollower::EndAll() { BeginStep({}, Phase::kPrefill); }

}  // namespace bullpen
