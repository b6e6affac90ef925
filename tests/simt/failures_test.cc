// What a kernel must not do, and the first line of the report that it gets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "backend/cuda/ptx.h"
#include "tests/simt/simt.h"

namespace headcount {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Matcher;

constexpr uint32_t kAll = ~0u;

template <typename Kernel>
void ExpectFailure(unsigned threads, const Kernel& kernel,
                   const Matcher<const std::string&>& report) {
  for (const simt::Options& options : simt::AllOrders()) {
    EXPECT_DEATH(simt::Launch(options, 1, threads, 1024, kernel), report);
  }
}

template <typename T>
T* Shared(size_t offset = 0) {
  HEADCOUNT_SHARED(shared);
  return reinterpret_cast<T*>(shared + offset);
}

void Load16(const void* global) {
  uint32_t words[4];
  ptx::LoadGlobal16(global, words);
}

TEST(Failure, SyncThreadsAtUnlikePlaces) {
  ExpectFailure(
      64,
      [] {
        if (threadIdx.x < 32) {
          __syncthreads();
        } else {
          __syncthreads();
        }
      },
      AllOf(HasSubstr("simt: divergent __syncthreads: others wait in line"),
            HasSubstr(", block (0,0,0) thread "),
            HasSubstr("at failures_test.cc:")));
}

TEST(Failure, DeadlockNamesTheThreadsAndWhatTheyWaitFor) {
  ExpectFailure(
      64,
      [] {
        if (threadIdx.x < 32) {
          ptx::NamedBarrierSync(1, 64);
        } else {
          ptx::NamedBarrierSync(2, 64);
        }
      },
      AllOf(
          HasSubstr(
              "simt: deadlock of threads 0-63 (warps 0-1), block (0,0,0)"),
          HasSubstr("threads 0-31 (warp 0): waits at NamedBarrierSync 1, "
                    "where 32 of 64 threads are at failures_test.cc:"),
          HasSubstr("threads 32-63 (warp 1): waits at NamedBarrierSync 2, ")));
}

TEST(Failure, ABarrierForWhichNobodyArrives) {
  ExpectFailure(
      33,
      [] {
        auto* barrier = Shared<ptx::Barrier>(64);
        if (threadIdx.x == 0) ptx::BarrierInit(barrier, 2);
        __syncthreads();
        if (threadIdx.x == 0) ptx::BarrierArrive(barrier);
        if (threadIdx.x == 32) ptx::BarrierWait(barrier, 0);
      },
      AllOf(HasSubstr("simt: deadlock of thread 32 (warp 1), block (0,0,0)"),
            HasSubstr("threads 0-31 (warp 0): has ended"),
            HasSubstr("thread 32 (warp 1): waits at a Barrier at offset 64 in "
                      "phase 0, which lacks 1 of 2 arrivals and 0 bytes at "
                      "failures_test.cc:")));
}

TEST(Failure, ALaneThatDoesNotComeToAShuffle) {
  ExpectFailure(
      32,
      [] {
        if (threadIdx.x != 7) {
          __shfl_xor_sync(kAll, 1, 1);
        } else {
          __syncthreads();
        }
      },
      AllOf(HasSubstr("simt: deadlock of threads 0-31"),
            HasSubstr("__shfl_xor_sync of lanes 0xffffffff, of which 0x80 are "
                      "missing")));
}

TEST(Failure, AShuffleThatNamesALaneThatHasEnded) {
  ExpectFailure(
      32,
      [] {
        if (threadIdx.x == 3) return;
        __syncthreads();
        __shfl_xor_sync(kAll, 1, 1);
      },
      HasSubstr("simt: __shfl_xor_sync with a mask that names a lane that has "
                "ended, block (0,0,0) thread "));
}

TEST(Failure, AShuffleFromOutsideItsMask) {
  ExpectFailure(
      32,
      [] {
        if (threadIdx.x < 4) __shfl_sync(0xF, 1, 9);
      },
      HasSubstr("simt: __shfl_sync from lane 9, which its mask leaves out"));
}

TEST(Failure, ALaneThatItsMaskLeavesOut) {
  ExpectFailure(
      32, [] { __ballot_sync(0xFF, true); },
      HasSubstr("simt: __ballot_sync by a lane that its mask leaves "
                "out, block (0,0,0) thread "));
}

TEST(Failure, LanesInUnlikeCollectives) {
  ExpectFailure(
      32,
      [] {
        if (threadIdx.x % 2 == 0) {
          __ballot_sync(kAll, true);
        } else {
          __syncwarp();
        }
      },
      HasSubstr(", where other lanes of the warp are at __"));
}

TEST(Failure, MmaAtUnlikePlaces) {
  ExpectFailure(
      32,
      [] {
        float d[4] = {};
        const uint32_t a[4] = {}, b[2] = {};
        if (threadIdx.x % 2 == 0) {
          ptx::MmaBf16(d, a, b);
        } else {
          ptx::MmaBf16(d, a, b);
        }
      },
      HasSubstr("simt: MmaBf16, where other lanes of the warp are at MmaBf16 "
                "in line "));
}

TEST(Failure, NamedBarriersThatAreNone) {
  ExpectFailure(
      32, [] { ptx::NamedBarrierSync(16, 32); },
      HasSubstr("simt: NamedBarrierSync of barrier 16"));
  ExpectFailure(
      32, [] { ptx::NamedBarrierSync(1, 16); },
      HasSubstr("simt: NamedBarrierSync of 16 threads"));
  ExpectFailure(
      96, [] { ptx::NamedBarrierSync(1, threadIdx.x < 32 ? 64 : 96); },
      HasSubstr("threads, where others wait for "));
}

TEST(Failure, MisalignedAndOutsideSharedMemory) {
  alignas(16) static unsigned char global[64];
  ExpectFailure(
      1, [] { ptx::CpAsync16(Shared<char>(8), global); },
      HasSubstr("simt: CpAsync16: offset 8 in shared memory is not a "
                "multiple of 16"));
  ExpectFailure(
      1, [] { ptx::CpAsync16(Shared<char>(), global + 4); },
      HasSubstr("simt: CpAsync16: address "));
  ExpectFailure(
      1, [] { ptx::CpAsync16(Shared<char>(1024), global); },
      HasSubstr("simt: CpAsync16: 16 bytes at offset 1024 are not "
                "within the 1024 bytes of shared memory"));
  ExpectFailure(
      1, [] { ptx::CpAsync16(global, global); },
      HasSubstr("are not within the 1024 bytes of shared memory"));
  ExpectFailure(
      1, [] { Load16(global + 8); }, HasSubstr("simt: a load: address "));
  ExpectFailure(
      1, [] { ptx::Store({}, reinterpret_cast<ptx::Float4*>(global + 8)); },
      HasSubstr("simt: a store: address "));
  ExpectFailure(
      32,
      [] {
        uint32_t matrices[4];
        ptx::LdMatrixX4(matrices, Shared<char>(threadIdx.x * 8));
      },
      HasSubstr("simt: LdMatrixX4: offset "));
}

// A block with one Barrier, at offset 512, for one arrival.
template <typename Use>
auto WithBarrier(Use use) {
  return [use] {
    auto* barrier = Shared<ptx::Barrier>(512);
    ptx::BarrierInit(barrier, 1);
    ptx::FenceBarrierInit();
    use(barrier);
  };
}

alignas(16) unsigned char source[2048];

TEST(Failure, BulkCopiesThatAreNotMultiplesOf16) {
  const auto copy = [](size_t to, size_t from, unsigned bytes) {
    return WithBarrier([=](ptx::Barrier* barrier) {
      ptx::BarrierExpectBytes(barrier, bytes);
      ptx::BulkCopy(Shared<char>(to), source + from, bytes, barrier);
      ptx::BarrierWait(barrier, 0);
    });
  };
  ExpectFailure(1, copy(8, 0, 16),
                HasSubstr("simt: BulkCopy: offset 8 in shared memory is not a "
                          "multiple of 16, block (0,0,0) thread 0"));
  ExpectFailure(1, copy(0, 8, 16), HasSubstr("simt: BulkCopy: address "));
  ExpectFailure(1, copy(0, 0, 24), HasSubstr("simt: BulkCopy of 24 bytes"));
  ExpectFailure(1, copy(0, 0, 0), HasSubstr("simt: BulkCopy of 0 bytes"));
  ExpectFailure(1, copy(528, 0, 512),
                HasSubstr("simt: BulkCopy: 512 bytes at offset 528 are not "
                          "within the 1024 bytes of shared memory"));
}

TEST(Failure, BarriersThatAreNone) {
  ExpectFailure(
      1, [] { ptx::BarrierArrive(Shared<ptx::Barrier>()); },
      HasSubstr("simt: BarrierArrive of what is no Barrier: not "
                "initialised, or written over"));
  ExpectFailure(1, WithBarrier([](ptx::Barrier* barrier) {
                  *reinterpret_cast<float*>(barrier) = 1.0f;
                  ptx::BarrierWait(barrier, 0);
                }),
                HasSubstr("simt: BarrierWait of what is no Barrier"));
  ExpectFailure(1, WithBarrier([](ptx::Barrier* barrier) {
                  ptx::BarrierInit(barrier, 1);
                }),
                HasSubstr("simt: BarrierInit of what is a Barrier already"));
  ExpectFailure(
      1, [] { ptx::BarrierInit(Shared<ptx::Barrier>(), 0); },
      HasSubstr("simt: BarrierInit with a count of 0"));
}

TEST(Failure, BarriersOfBulkCopies) {
  ExpectFailure(
      1,
      [] {
        auto* barrier = Shared<ptx::Barrier>(512);
        ptx::BarrierInit(barrier, 1);
        ptx::BulkCopy(Shared<char>(), source, 16, barrier);
      },
      HasSubstr("simt: BulkCopy to a Barrier without FenceBarrierInit"));
  // Bytes that nobody expects, and bytes that never come.
  ExpectFailure(1, WithBarrier([](ptx::Barrier* barrier) {
                  ptx::BulkCopy(Shared<char>(), source, 16, barrier);
                  ptx::BarrierArrive(barrier);
                  ptx::BarrierWait(barrier, 0);
                  ptx::BarrierWait(barrier, 1);
                }),
                HasSubstr("simt: deadlock of thread 0"));
  ExpectFailure(1, WithBarrier([](ptx::Barrier* barrier) {
                  ptx::BarrierExpectBytes(barrier, 32);
                  ptx::BulkCopy(Shared<char>(), source, 16, barrier);
                  ptx::BarrierWait(barrier, 0);
                }),
                HasSubstr("which lacks 0 of 1 arrivals and 16 bytes"));
  ExpectFailure(1, WithBarrier([](ptx::Barrier* barrier) {
                  ptx::BarrierExpectBytes(barrier, 32);
                  ptx::BarrierArrive(barrier);
                }),
                HasSubstr("simt: BarrierArrive, and all arrivals of the phase "
                          "were there"));
  ExpectFailure(1, WithBarrier([](ptx::Barrier* barrier) {
                  ptx::BarrierExpectBytes(barrier, 1 << 20);
                }),
                HasSubstr("these are more bytes than a Barrier counts"));
}

TEST(Failure, ABlockThatEndsBeforeItsBulkCopy) {
  EXPECT_DEATH(simt::Launch({.delivery = simt::Delivery::kLate}, 1, 1, 1024,
                            WithBarrier([](ptx::Barrier* barrier) {
                              ptx::BarrierExpectBytes(barrier, 16);
                              ptx::BulkCopy(Shared<char>(), source, 16,
                                            barrier);
                            })),
               "simt: the block ended before a BulkCopy had arrived");
}

TEST(Failure, OutsideABuffer) {
  const simt::Buffer<uint32_t> buffer(64);
  ExpectFailure(
      1, [&] { Load16(buffer.data() + 64); },
      HasSubstr("are outside their Buffer"));
  ExpectFailure(
      1, [&] { Load16(buffer.data() - 4); },
      HasSubstr("are outside their Buffer"));
  ExpectFailure(1, WithBarrier([&](ptx::Barrier* barrier) {
                  ptx::BulkCopy(Shared<char>(), buffer.data() + 60, 32,
                                barrier);
                }),
                HasSubstr("simt: BulkCopy: 32 bytes at "));
}

TEST(Failure, AStoreOutsideABufferIsSeenAtTheLatestAtItsEnd) {
  EXPECT_DEATH(
      {
        simt::Buffer<int> buffer(3);
        int* const end = buffer.data() + 3;
        simt::Launch(1, 1, 0, [=] { *end = 0; });
      },
      "outside a Buffer|outside their Buffer|AddressSanitizer");
}

TEST(Failure, AStackThatIsTooSmall) {
  // The page before each stack must not be touched.
  const auto recurse = [](auto&& self, int depth) -> int {
    volatile char frame[4096];
    frame[0] = char(depth);
    return depth == 0 ? frame[0] : self(self, depth - 1) + frame[0];
  };
  EXPECT_DEATH(simt::Launch(1, 2, 0, [&] { recurse(recurse, 1000); }), "");
}

}  // namespace
}  // namespace headcount
