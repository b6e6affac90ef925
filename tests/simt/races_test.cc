// Races in shared memory: of copies and ldmatrix here, of all loads and stores
// where this is compiled with -fsanitize=thread (CMakeLists.txt).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cuda/ptx.h"
#include "tests/simt/simt.h"

namespace headcount {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

alignas(16) uint32_t source[1024];

// What a kernel leaves out.
enum class Without {
  kNothing,
  kWait,          // for the copies
  kBarrierAfter,  // the wait, before others read
  kBarrierBefore  // the next copies, after others have read
};

// Lanes copy 16 bytes each and read what others have copied, twice.
__global__ void CopyAndLoad(Without without) {
  HEADCOUNT_SHARED(shared);
  const unsigned lane = threadIdx.x;
  for (int round = 0; round < 2; ++round) {
    ptx::CpAsync16(shared + lane * 16, source + lane * 4);
    ptx::CpAsyncCommit();
    if (without != Without::kWait) ptx::CpAsyncWait<0>();
    if (without != Without::kBarrierAfter) __syncwarp();
    uint32_t matrices[4];
    ptx::LdMatrixX4(matrices, shared + (lane ^ 5) * 16);
    if (without != Without::kBarrierBefore) __syncwarp();
    ptx::CpAsyncWait<0>();
  }
}

TEST(Races, OfCpAsyncAndLdMatrix) {
  for (const simt::Options& options : simt::AllOrders()) {
    const auto launch = [&](Without without) {
      simt::Launch(options, 2, 32, 512, CopyAndLoad, without);
    };
    launch(Without::kNothing);
    EXPECT_DEATH(launch(Without::kWait),
                 AllOf(HasSubstr("simt: race: LdMatrixX4 at offset "),
                       HasSubstr("has not waited for that copy")));
    // Whichever of the two comes second is told.
    EXPECT_DEATH(
        launch(Without::kBarrierAfter),
        AllOf(HasSubstr("simt: race: "), HasSubstr("no barrier is between")));
    EXPECT_DEATH(launch(Without::kBarrierBefore),
                 AllOf(HasSubstr("simt: race: CpAsync16 at offset "),
                       HasSubstr(" reads at races_test.cc:")));
  }
}

// Thread 0 brings 512 bytes, twice, for two warps.
__global__ void BulkAndLoad(Without without) {
  HEADCOUNT_SHARED(shared);
  auto* full = reinterpret_cast<ptx::Barrier*>(shared + 512);
  auto* empty = full + 1;
  if (threadIdx.x == 0) {
    ptx::BarrierInit(full, 1);
    ptx::BarrierInit(empty, 64);
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  for (unsigned round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) {
      if (round == 1 && without != Without::kBarrierBefore) {
        ptx::BarrierWait(empty, 0);
      }
      ptx::BarrierExpectBytes(full, 512);
      ptx::BulkCopy(shared, source, 512, full);
    }
    __syncwarp();
    if (without != Without::kWait) ptx::BarrierWait(full, round);
    uint32_t matrices[4];
    ptx::LdMatrixX4(matrices, shared + threadIdx.x % 32 * 16);
    ptx::BarrierArrive(empty);
    ptx::BarrierWait(full, round);
  }
}

TEST(Races, OfBulkCopyAndLdMatrix) {
  for (const simt::Options& options : simt::AllOrders()) {
    const auto launch = [&](Without without) {
      simt::Launch(options, 2, 64, 528, BulkAndLoad, without);
    };
    launch(Without::kNothing);
    EXPECT_DEATH(launch(Without::kWait),
                 AnyOf(AllOf(HasSubstr("simt: race: LdMatrixX4 at offset "),
                             HasSubstr(", which a BulkCopy writes at "
                                       "races_test.cc:"),
                             HasSubstr("has not waited for that copy")),
                       // Where the warp that reads ran ahead.
                       HasSubstr("simt: race: BulkCopy at offset ")));
    EXPECT_DEATH(launch(Without::kBarrierBefore),
                 HasSubstr("simt: race: BulkCopy at offset "));
  }
}

// What one thread has waited for, others have after a barrier.
__global__ void OneWaitsForAll() {
  HEADCOUNT_SHARED(shared);
  auto* full = reinterpret_cast<ptx::Barrier*>(shared + 512);
  if (threadIdx.x == 0) {
    ptx::BarrierInit(full, 1);
    ptx::FenceBarrierInit();
    ptx::BarrierExpectBytes(full, 512);
    ptx::BulkCopy(shared, source, 512, full);
    ptx::BarrierWait(full, 0);
  }
  __syncthreads();
  uint32_t matrices[4];
  ptx::LdMatrixX4(matrices, shared + threadIdx.x % 32 * 16);
  ptx::NamedBarrierSync(3, 64);
  if (threadIdx.x >= 32) return;
  ptx::CpAsync16(shared + threadIdx.x * 16, source);
  ptx::CpAsyncCommit();
  ptx::CpAsyncWait<0>();
  __syncwarp();
  ptx::LdMatrixX4Trans(matrices, shared + threadIdx.x * 16);
}

TEST(Races, NoneWhereBarriersHandOn) {
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Launch(options, 3, 64, 520, OneWaitsForAll);
  }
}

TEST(Races, CanBeLeftOut) {
  simt::Launch({.delivery = simt::Delivery::kImmediate, .races = false}, 1, 32,
               512, CopyAndLoad, Without::kBarrierAfter);
}

#if defined(__SANITIZE_THREAD__)

// Thread i writes its word and reads that of the next.
__global__ void Neighbours(uint32_t* out, bool with_barriers) {
  HEADCOUNT_SHARED(shared);
  auto* words = reinterpret_cast<uint32_t*>(shared);
  words[threadIdx.x] = threadIdx.x;
  if (with_barriers) __syncthreads();
  out[threadIdx.x] = words[(threadIdx.x + 1) % blockDim.x];
}

TEST(PlainRaces, OfLoadsAndStores) {
  simt::Buffer<uint32_t> out(64);
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Launch(options, 2, 64, 256, Neighbours, out.data(), true);
    EXPECT_DEATH(
        simt::Launch(options, 2, 64, 256, Neighbours, out.data(), false),
        AllOf(HasSubstr("simt: race: a "), HasSubstr("addr2line -Cipe "),
              HasSubstr("no barrier is between")));
  }
}

// A shuffle makes lanes meet, but does not order what they write and read.
__global__ void MeetOnly(uint32_t* out) {
  HEADCOUNT_SHARED(shared);
  auto* words = reinterpret_cast<uint32_t*>(shared);
  words[threadIdx.x] = threadIdx.x;
  __shfl_sync(~0u, 0, 0);
  out[threadIdx.x] = words[threadIdx.x ^ 1];
}

TEST(PlainRaces, AShuffleIsNoBarrierOfMemory) {
  simt::Buffer<uint32_t> out(32);
  EXPECT_DEATH(simt::Launch(1, 32, 128, MeetOnly, out.data()),
               "simt: race: a load");
}

// Bytes beside each other are no race.
__global__ void Bytes(unsigned char* out) {
  HEADCOUNT_SHARED(shared);
  shared[threadIdx.x] = static_cast<unsigned char>(threadIdx.x);
  out[threadIdx.x] = shared[threadIdx.x];
}

TEST(PlainRaces, NotOfNeighbouringBytes) {
  simt::Buffer<unsigned char> out(64);
  for (const simt::Options& options : simt::AllOrders()) {
    simt::Launch(options, 1, 64, 64, Bytes, out.data());
  }
}

TEST(PlainRaces, OfAStoreOverACopy) {
  const auto kernel = [] {
    HEADCOUNT_SHARED(shared);
    ptx::CpAsync16(shared, source);
    ptx::CpAsyncCommit();
    shared[3] = 0;
  };
  EXPECT_DEATH(simt::Launch(1, 1, 16, kernel), "simt: race: a store");
}

TEST(PlainRaces, NotOfAtomics) {
  unsigned sum = 0;
  simt::Launch(1, 64, 16, [&] {
    HEADCOUNT_SHARED(shared);
    auto* count = reinterpret_cast<unsigned*>(shared);
    if (threadIdx.x == 0) *count = 0;
    __syncthreads();
    atomicAdd(count, 2);
    __syncthreads();
    if (threadIdx.x == 1) sum = *count;
  });
  EXPECT_EQ(sum, 128u);
}

TEST(PlainAccesses, OutsideABuffer) {
  simt::Buffer<int> buffer(3);
  EXPECT_DEATH(simt::Launch(1, 1, 0, [&] { buffer[3] = 0; }),
               "simt: a store: 4 bytes at .* are outside their Buffer");
}

#endif

}  // namespace
}  // namespace headcount
