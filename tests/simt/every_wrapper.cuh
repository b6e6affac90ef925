// Every wrapper of ptx.h once, so that compiling this for each architecture
// checks all of them:
//
//   nvcc -std=c++20 -arch=sm_90 --expt-relaxed-constexpr -Xcompiler -Wall
//        -Isrc -I. -include tests/simt/every_wrapper.cuh
//        -c -o every_wrapper.o -x cu /dev/null
#pragma once

#include "backend/cuda/ptx.h"

namespace headcount {

struct EveryWrapper {
  const unsigned char* in;  // 1024 bytes
  unsigned char* out;       // 1024 bytes
  float* sum;
  bool has_bulk_copies;  // sm_90 and later
};

DEVICE float EveryNumber(uint32_t bits) {
  const auto low = static_cast<uint16_t>(bits);
  float value = ptx::Bf16ToFloat(low) + ptx::HalfToFloat(low);
  bits += ptx::PackBf16(value, 1.0f) ^ ptx::PackHalf(value, 2.0f);
  bits ^= ptx::HalfSub2(bits, 0x3C003C00) + ptx::HalfMul2(bits, 0x3C003C00);
  bits ^= ptx::Bf16Add2(bits, 0x3F803F80);
  bits ^= ptx::Prmt(bits, 7, 0x4321) + ptx::E4m3PairToHalf2(low);
  bits += ptx::FloatToBf16(value) + static_cast<uint32_t>(bits >> 9);
  value += ptx::HalfToFloat(ptx::FloatToHalf(ptx::Exp2(-value)));
  return value + static_cast<float>(bits & 1);
}

DEVICE void EveryMatrix(const unsigned char* shared, float (&d)[4]) {
  const unsigned lane = threadIdx.x % 32;
  uint32_t a[4], b[4];
  ptx::LdMatrixX4(a, shared + lane * 16);
  ptx::LdMatrixX4Trans(b, shared + lane * 16);
  uint32_t more[4];
  ptx::LoadShared16(shared + lane * 16, more);
  const uint32_t columns[2] = {ptx::MovMatrixTrans(b[0]), b[1] ^ more[0]};
  ptx::MmaBf16(d, a, columns);
  ptx::MmaHalf(d, a, columns);
}

DEVICE void EveryBulkCopy(unsigned char* shared, const unsigned char* in) {
  auto* barrier = reinterpret_cast<ptx::Barrier*>(shared + 1024);
  if (threadIdx.x == 0) {
    ptx::BarrierInit(barrier, 2);
    ptx::FenceBarrierInit();
  }
  ptx::FenceProxyAsync();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::BarrierExpectBytes(barrier, 512);
    ptx::BulkCopy(shared, in, 512, barrier);
  } else if (threadIdx.x == 32) {
    ptx::BarrierArrive(barrier);
  }
  ptx::BarrierWait(barrier, 0);
}

__global__ void __launch_bounds__(64) UseEveryWrapper(EveryWrapper p) {
  HEADCOUNT_SHARED(shared);  // 1032 bytes
  ptx::GridDependencyWait();
  ptx::CpAsync16(shared + threadIdx.x * 16, p.in + threadIdx.x * 16);
  ptx::CpAsyncCommit();
  ptx::CpAsyncWait<0>();
  __syncthreads();
  float d[4] = {EveryNumber(threadIdx.x), 0.0f, 0.0f, 0.0f};
  EveryMatrix(shared, d);
  ptx::NamedBarrierSync(1, 64);
  if (p.has_bulk_copies) EveryBulkCopy(shared, p.in);
  uint32_t words[4];
  ptx::LoadGlobal16(p.in + threadIdx.x * 16, words);
  words[0] = static_cast<uint32_t>(d[0] + d[1]) + ptx::Load(p.in);
  uint32_t more[4];
  ptx::LoadStream16(p.in + threadIdx.x * 16, more);
  words[2] ^= more[1];
  const ptx::Float4 floats =
      ptx::LoadGlobalFloat4(reinterpret_cast<const float*>(p.in));
  words[1] ^= static_cast<uint32_t>(floats.x);
  for (unsigned i = 0; i < 4; ++i) {
    auto* const out = reinterpret_cast<uint32_t*>(p.out);
    ptx::Store(words[i], out + threadIdx.x * 4 + i);
  }
  float sum = __shfl_xor_sync(~0u, d[2], 1) + __shfl_sync(~0u, d[3], 0);
  sum += __shfl_down_sync(~0u, sum, 4) + ptx::LoadGlobal(p.sum);
  const bool is_any = __any_sync(~0u, sum > 0) || __all_sync(~0u, sum < 0);
  const bool is_more = __ballot_sync(~0u, sum > 1) != 0;
  atomicAdd(p.sum, is_any && is_more ? sum : 1.0f);
  __threadfence();
  __syncwarp();
  ptx::GridDependencyLaunch();
}

}  // namespace headcount
