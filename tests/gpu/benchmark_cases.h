// What the attention benchmark times.
#pragma once

#include <string>
#include <vector>

#include "heads/kv_dtype.h"

namespace headcount::gpu {

struct BenchmarkCase {
  std::string name;
  std::vector<int> groups;
  int head_dim = 128;
  KvDtype dtype = KvDtype::kBf16;
  int sequences = 1;
  int rows = 1;
  int past = 0;
  int window = 0;
  std::vector<int> lengths = {};  // in place of `sequences` x `past`
};

// Decode, then prefill (rows > 1).
std::vector<BenchmarkCase> BenchmarkCases();

}  // namespace headcount::gpu
