// Counts the sectors of global memory that warps ask for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_set>
#include <vector>

#include "tests/simt/simt.h"

namespace headcount::simt {

// Lanes run one after another here, so what a warp does in one instruction is
// put together from what its lanes do: a lane's nth access at a place in the
// source belongs to the warp's nth.
class Sectors {
 public:
  static constexpr size_t kBytes = 32;

  // Forgets the places: a block ends what its warps began.
  void Reset(size_t warps);

  // How many of the sectors of [address, address + bytes) the warp has not yet
  // asked for in this instruction.
  int64_t Access(unsigned warp, unsigned lane, const void* address,
                 size_t bytes, Where where);

  // How many of them the block has not yet touched in this way.
  int64_t Touch(const void* address, size_t bytes, bool is_write);

 private:
  static constexpr unsigned kLanes = 32;

  struct Instruction {
    unsigned lanes = 0;  // that came
    std::vector<uintptr_t> sectors;
  };
  // A warp at a place.
  struct Visits {
    std::array<size_t, kLanes> of_lane{};
    size_t complete = 0;  // instructions before the first of `open`
    std::deque<Instruction> open;
  };
  struct Place {
    Where where;
    std::vector<Visits> warps;
  };

  Visits& VisitsOf(unsigned warp, Where where);

  size_t warps_ = 0;
  std::vector<Place> places_;
  std::unordered_set<uintptr_t> touched_[2];  // read; written
};

}  // namespace headcount::simt
