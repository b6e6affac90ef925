// What is counted, on kernels for which one can count by hand.
#include <gtest/gtest.h>

#include "backend/cuda/ptx.h"
#include "tests/simt/simt.h"

namespace headcount {
namespace {

// Each lane loads 16 bytes `stride` bytes from the last, `rounds` times.
__global__ void Loads(const unsigned char* in, unsigned stride, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    uint32_t words[4];
    ptx::LoadGlobal16(in + (threadIdx.x + unsigned(i)) * stride, words);
  }
}

TEST(Sectors, AreThoseThatAWarpTouches) {
  const simt::Buffer<unsigned char> in(100 * 128);
  for (const simt::Options& options : simt::AllOrders()) {
    const auto read = [&](unsigned stride, int rounds) {
      return simt::Launch(options, 1, 64, 0, Loads, in.data(), stride, rounds)
          .sectors_read;
    };
    EXPECT_EQ(read(0, 1), 2);    // the same for all lanes of two warps
    EXPECT_EQ(read(16, 1), 32);  // 1024 bytes
    EXPECT_EQ(read(32, 1), 64);  // half of each sector
    EXPECT_EQ(read(128, 1), 64);
    EXPECT_EQ(read(16, 3), 32 + 34 + 32);  // the second is off by half a sector
    const simt::Counters thrice =
        simt::Launch(options, 2, 64, 0, Loads, in.data(), 16u, 3);
    EXPECT_EQ(thrice.sectors_moved, 2 * 33);  // of two blocks
  }
}

// Lanes that come less often than others: 32, 16 and 8 of them.
__global__ void FewerEachTime(unsigned char* out) {
  for (unsigned lanes = 32; lanes >= 8; lanes /= 2) {
    if (threadIdx.x >= lanes) break;
    ptx::Store({}, reinterpret_cast<ptx::Float4*>(out) + threadIdx.x);
  }
}

TEST(Sectors, OfLanesThatPart) {
  simt::Buffer<unsigned char> out(32 * 16);
  for (const simt::Options& options : simt::AllOrders()) {
    const simt::Counters counters =
        simt::Launch(options, 5, 32, 0, FewerEachTime, out.data());
    EXPECT_EQ(counters.sectors_written, 5 * (16 + 8 + 4));
    EXPECT_EQ(counters.sectors_read, 0);
  }
}

__global__ void CopyBothWays(const unsigned char* in, const float* value) {
  HEADCOUNT_SHARED(shared);
  auto* barrier = reinterpret_cast<ptx::Barrier*>(shared + 1024);
  ptx::CpAsync16(shared + threadIdx.x * 16, in + threadIdx.x * 16);
  ptx::CpAsyncCommit();
  ptx::LoadGlobal(value + threadIdx.x);
  if (threadIdx.x != 0) return;
  ptx::BarrierInit(barrier, 1);
  ptx::FenceBarrierInit();
  ptx::BarrierExpectBytes(barrier, 96);
  ptx::BulkCopy(shared + 512, in + 16, 96, barrier);
  ptx::BarrierWait(barrier, 0);
}

TEST(Sectors, OfCopies) {
  const simt::Buffer<unsigned char> in(512);
  const simt::Buffer<float> value(32);
  const simt::Counters counters =
      simt::Launch(1, 32, 1032, CopyBothWays, in.data(), value.data());
  // 512 bytes by threads, 128 by LoadGlobal, and 96 at once that begin in the
  // middle of a sector.
  EXPECT_EQ(counters.sectors_read, 16 + 4 + 4);
  EXPECT_EQ(counters.sectors_moved, 16 + 4 + 4);
  EXPECT_EQ(counters.async_copies, 32);
  EXPECT_EQ(counters.bulk_copies, 1);
}

__global__ void LoadRows(int stride, bool swizzled) {
  HEADCOUNT_SHARED(shared);
  const int row = int(threadIdx.x) % 16;
  const int column = int(threadIdx.x) / 16 ^ (swizzled ? row % 8 : 0);
  uint32_t matrices[4];
  ptx::LdMatrixX4(matrices, shared + row * stride + column * 16);
}

TEST(MatrixPasses, AreOneForEachMatrixWithoutBankConflicts) {
  const auto passes = [](int stride, bool swizzled) {
    const simt::Counters counters = simt::Launch(
        1, 32, size_t(stride) * 16 + 128, LoadRows, stride, swizzled);
    EXPECT_EQ(counters.matrices, 4);
    return counters.matrix_passes;
  };
  EXPECT_EQ(passes(128, false), 4 * 8);  // all rows in the same banks
  EXPECT_EQ(passes(64, false), 4 * 4);
  EXPECT_EQ(passes(32, false), 4 * 2);
  EXPECT_EQ(passes(16, false), 4);
  EXPECT_EQ(passes(144, false), 4);
  EXPECT_EQ(passes(0, false), 4);  // one row, read once
  EXPECT_EQ(passes(128, true), 4);
}

__global__ void LoadStrided(int stride) {
  HEADCOUNT_SHARED(shared);
  uint32_t words[4];
  ptx::LoadShared16(shared + int(threadIdx.x) * stride, words);
}

// Eight lanes at a time.
TEST(MatrixPasses, OfLoadsOf16Bytes) {
  const auto passes = [](int stride) {
    const simt::Counters counters =
        simt::Launch(1, 32, size_t(stride) * 32 + 16, LoadStrided, stride);
    EXPECT_EQ(counters.matrices, 4);
    return counters.matrix_passes;
  };
  EXPECT_EQ(passes(16), 4);
  EXPECT_EQ(passes(32), 4 * 2);
  EXPECT_EQ(passes(128), 4 * 8);
  EXPECT_EQ(passes(0), 4);
}

TEST(Counters, SumOverBlocks) {
  const simt::Counters counters = simt::Launch(7, 64, 0, [] {
    __syncthreads();
    __syncwarp();
    __any_sync(~0u, true);
    ptx::NamedBarrierSync(4, 64);
  });
  EXPECT_EQ(counters.barriers, 7 * 2);
  EXPECT_EQ(counters.collectives, 7 * 2 * 2);
}

}  // namespace
}  // namespace headcount
