#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/predictor.h"

namespace bullpen {

// How many tokens of one request used each expert (the expert activation matrix
// of MoE-Infinity, arXiv 2401.14361). One thread.
class ActivationMatrix {
 public:
  explicit ActivationMatrix(const RoutingShape& shape);

  // `layer` has routed some of the request's tokens; [tokens, top_k].
  void Add(int32_t layer, std::span<const int32_t> chosen);
  // [layers, width]: of each layer's tokens the share that used the expert.
  std::vector<float> Shares() const;
  bool empty() const { return empty_; }

 private:
  std::vector<RoutingShape::Layer> layers_;
  int32_t width_;
  bool empty_ = true;
  std::vector<float> counts_;  // [layers, width]
};

// The matrices of past requests, to tell from a request's first tokens what the
// rest will use. Bounded; what is most like a new one makes room for it. Pure;
// one thread.
class ActivationStore {
 public:
  ActivationStore(const RoutingShape& shape, int32_t capacity);

  // Keeps the shares of a request that has ended.
  void Add(const ActivationMatrix& request);
  // The mean, weighted by likeness, of the requests most like this beginning;
  // as Shares() gives it. Empty: none is like it.
  std::vector<float> Match(const ActivationMatrix& beginning) const;

  // For a profile: each [layers, width], shares in [0, 1].
  const std::vector<std::vector<float>>& matrices() const { return kept_; }
  void Restore(std::vector<std::vector<float>> matrices);
  size_t matrix_size() const { return matrix_size_; }

 private:
  std::vector<float> Likenesses(std::span<const float> shares) const;

  size_t matrix_size_;
  size_t capacity_;
  std::vector<std::vector<float>> kept_;
  std::vector<float> lengths_;  // of each as a vector
};

}  // namespace bullpen
