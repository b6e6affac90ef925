#include "tests/gpu/benchmark_cases.h"

namespace headcount::gpu {

std::vector<BenchmarkCase> BenchmarkCases() {
  const std::vector<int> llama(8, 4);
  const std::vector<int> half(4, 4);
  const std::vector<int> ragged = {4, 2, 1, 3, 4, 1, 2, 4};
  std::vector<BenchmarkCase> cases;
  const auto decode = [&](const char* name, const std::vector<int>& groups,
                          int head_dim, KvDtype dtype, int sequences,
                          int length) {
    cases.push_back({.name = name,
                     .groups = groups,
                     .head_dim = head_dim,
                     .dtype = dtype,
                     .sequences = sequences,
                     .past = length - 1});
  };
  const KvDtype bf16 = KvDtype::kBf16;
  decode("32 x 4k, 32/8 heads, bf16", llama, 128, bf16, 32, 4096);
  decode("8 x 32k, 32/8 heads, bf16", llama, 128, bf16, 8, 32768);
  decode("1 x 32k, 32/8 heads, bf16", llama, 128, bf16, 1, 32768);
  decode("1 x 8k, 32/8 heads, bf16", llama, 128, bf16, 1, 8192);
  decode("1 x 1k, 32/8 heads, bf16", llama, 128, bf16, 1, 1024);
  decode("256 x 1k, 32/8 heads, bf16", llama, 128, bf16, 256, 1024);
  decode("32 x 4k, 16/4 heads (half), bf16", half, 128, bf16, 32, 4096);
  decode("8 x 32k, 16/4 heads (half), bf16", half, 128, bf16, 8, 32768);
  decode("32 x 4k, 21/8 heads (ragged), bf16", ragged, 128, bf16, 32, 4096);
  decode("32 x 4k, 32/8 heads, f16", llama, 128, KvDtype::kF16, 32, 4096);
  decode("32 x 4k, 32/8 heads, fp8", llama, 128, KvDtype::kFp8E4m3, 32, 4096);
  decode("32 x 4k, 32/8 heads, int8", llama, 128, KvDtype::kInt8, 32, 4096);
  decode("32 x 4k, 32/8 heads, int4", llama, 128, KvDtype::kInt4, 32, 4096);
  decode("8 x 32k, 32/8 heads, int8", llama, 128, KvDtype::kInt8, 8, 32768);
  decode("1 x 32k, 32/8 heads, int8", llama, 128, KvDtype::kInt8, 1, 32768);
  decode("128 x 2k, 64/8 heads, fp8", std::vector<int>(8, 8), 128,
         KvDtype::kFp8E4m3, 128, 2048);
  decode("32 x 4k, 32/2 heads, bf16", {16, 16}, 128, bf16, 32, 4096);
  decode("256 x 2k, 9/3 heads, d64, bf16", {3, 3, 3}, 64, bf16, 256, 2048);
  decode("256 x 2k, 4/2 heads {3,1}, d64, bf16", {3, 1}, 64, bf16, 256, 2048);
  decode("256 x 2k, 9/3 heads, d64, int8", {3, 3, 3}, 64, KvDtype::kInt8, 256,
         2048);
  cases.push_back(
      {.name = "1 x 64k + 15 x 4k, 32/8 heads, bf16",
       .groups = llama,
       .lengths = {65535, 4095, 4095, 4095, 4095, 4095, 4095, 4095, 4095, 4095,
                   4095, 4095, 4095, 4095, 4095, 4095}});
  const auto prefill = [&](const char* name, const std::vector<int>& groups,
                           int head_dim, KvDtype dtype, int sequences, int past,
                           int rows) {
    cases.push_back({.name = name,
                     .groups = groups,
                     .head_dim = head_dim,
                     .dtype = dtype,
                     .sequences = sequences,
                     .rows = rows,
                     .past = past});
  };
  prefill("prefill 1 x 512, 32/8 heads, bf16", llama, 128, bf16, 1, 0, 512);
  prefill("prefill 1 x 2k, 32/8 heads, bf16", llama, 128, bf16, 1, 0, 2048);
  prefill("prefill 1 x 8k, 32/8 heads, bf16", llama, 128, bf16, 1, 0, 8192);
  prefill("prefill 1 x 32k, 32/8 heads, bf16", llama, 128, bf16, 1, 0, 32768);
  prefill("prefill 8 x 2k, 32/8 heads, bf16", llama, 128, bf16, 8, 0, 2048);
  prefill("prefill 512 behind 8k, 32/8 heads, bf16", llama, 128, bf16, 1, 8192,
          512);
  prefill("prefill 512 behind 32k, 32/8 heads, bf16", llama, 128, bf16, 1,
          32768, 512);
  prefill("prefill 1 x 8k, 21/8 heads (ragged), bf16", ragged, 128, bf16, 1, 0,
          8192);
  prefill("prefill 1 x 8k, 32/8 heads, int8", llama, 128, KvDtype::kInt8, 1, 0,
          8192);
  prefill("prefill 1 x 8k, 32/8 heads, int4", llama, 128, KvDtype::kInt4, 1, 0,
          8192);
  prefill("prefill 1 x 8k, 9/3 heads, d64, bf16", {3, 3, 3}, 64, bf16, 1, 0,
          8192);
  return cases;
}

}  // namespace headcount::gpu
