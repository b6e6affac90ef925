// What the operations of a step need besides their operands.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/rope_table.h"

namespace headcount {

struct StepState {
  StepInputs inputs;
  RopeTable rope;
  std::vector<int32_t> row_sequence;  // [rows] -> index in inputs.sequences

  // Byte offset in the arena of the block that holds `token` of a sequence.
  int64_t Block(const StepSequence& sequence, int group, int64_t token) const {
    const int64_t begin = sequence.block_begin[static_cast<size_t>(group)];
    return inputs
        .block_offsets[static_cast<size_t>(begin + token / kBlockTokens)];
  }
};

}  // namespace headcount
