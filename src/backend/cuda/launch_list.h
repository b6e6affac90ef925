// Launches that are held back, with copies of their parameters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/cuda/device.h"

namespace headcount::cuda {

// Memory is kept when it is cleared. Not thread-safe.
class LaunchList {
 public:
  void Clear();
  void Add(const LaunchCall& call);

  bool empty() const { return heads_.empty(); }
  size_t size() const { return heads_.size(); }
  // Its parameters are those of the list, until the list changes.
  LaunchCall at(size_t index) const;
  std::vector<LaunchCall> calls() const;

  // Whether the two are of the same kernels on the same grids, in order.
  bool SameShape(const LaunchList& other) const {
    return heads_ == other.heads_;
  }
  // Of a list of the same shape: the launches whose parameters differ. Ends
  // with the one that makes more than `most` of them.
  void FindDifferent(const LaunchList& other, size_t most,
                     std::vector<size_t>* different) const;
  // Takes those over.
  void CopyParams(const LaunchList& other) { params_ = other.params_; }
  // Of all that SameShape and FindDifferent compare.
  size_t Hash() const;

 private:
  struct Head {
    LaunchCall call;    // without parameters
    int64_t place = 0;  // of the parameters, in params_
    bool operator==(const Head& other) const;
  };

  std::vector<Head> heads_;
  std::vector<std::byte> params_;  // each at a multiple of 16 bytes
};

}  // namespace headcount::cuda
