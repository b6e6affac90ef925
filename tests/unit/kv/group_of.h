// A model of one group, for tests that need no more of a pool.
#pragma once

#include <cstdint>

#include "kv/block_pool.h"

namespace headcount {

inline GroupId GroupOf(BlockPool* pool, int64_t block_bytes) {
  return pool->AddModel({}, {block_bytes}).value().groups.front();
}

}  // namespace headcount
