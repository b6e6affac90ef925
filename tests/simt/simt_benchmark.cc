// How many blocks the emulator runs in a second.
#include <benchmark/benchmark.h>

#include "backend/cuda/ptx.h"
#include "tests/simt/simt.h"

namespace headcount {
namespace {

constexpr unsigned kBlocks = 100;
constexpr unsigned kThreads = 128;
constexpr size_t kSharedBytes = 8 << 10;

__global__ void Nothing() {}

// Ten shuffles and a barrier.
__global__ void Reduce(float* out) {
  HEADCOUNT_SHARED(shared);
  auto* sums = reinterpret_cast<float*>(shared);
  float sum = float(threadIdx.x);
  for (int round = 0; round < 2; ++round) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      sum += __shfl_xor_sync(~0u, sum, lanes);
    }
  }
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = sums[0] + sums[1];
}

// As in attention, each warp on its own: copies 2 KiB and takes it through four
// ldmatrix and four mma.
__global__ void Multiply(const unsigned char* in, float* out) {
  HEADCOUNT_SHARED(shared);
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned char* tile = shared + warp * 2048;
  for (unsigned i = 0; i < 2048; i += 512) {
    ptx::CpAsync16(tile + i + lane * 16, in + i + lane * 16);
  }
  ptx::CpAsyncCommit();
  ptx::CpAsyncWait<0>();
  __syncwarp();
  float d[4] = {};
  for (unsigned i = 0; i < 2048; i += 512) {
    uint32_t a[4];
    ptx::LdMatrixX4(a, tile + i + lane * 16);
    const uint32_t b[2] = {a[0], a[1]};
    ptx::MmaBf16(d, a, b);
  }
  out[threadIdx.x] = d[0];
}

template <typename... Args>
void Run(benchmark::State& state, Args... args) {
  const simt::Options options = {.races = state.range(0) != 0};
  for (auto _ : state) {
    simt::Launch(options, kBlocks, kThreads, kSharedBytes, args...);
  }
  state.SetItemsProcessed(state.iterations() * kBlocks);
}

void BM_Nothing(benchmark::State& state) { Run(state, Nothing); }
BENCHMARK(BM_Nothing)->ArgName("races")->Arg(0)->Arg(1);

void BM_Reduce(benchmark::State& state) {
  simt::Buffer<float> out(kBlocks);
  Run(state, Reduce, out.data());
}
BENCHMARK(BM_Reduce)->ArgName("races")->Arg(0)->Arg(1);

void BM_Multiply(benchmark::State& state) {
  const simt::Buffer<unsigned char> in(2048);
  simt::Buffer<float> out(kThreads);
  Run(state, Multiply, in.data(), out.data());
}
BENCHMARK(BM_Multiply)->ArgName("races")->Arg(0)->Arg(1);

}  // namespace
}  // namespace headcount

BENCHMARK_MAIN();
