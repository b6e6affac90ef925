// Every instruction that CUDA C++ has no name for, and what kernels use in its
// place when they run on the CPU: the only file with inline assembly, and the
// only one that differs between the two. Instructions: PTX ISA 9.0.
//
// Matrices are 8x8 of 16-bit units, or 16x16 and 16x8 as mma has them; which
// lane holds what is said there, under mma.m16n8k16 and ldmatrix.
#pragma once

#if defined(HEADCOUNT_SIMT)
#include "tests/simt/ptx.h"  // IWYU pragma: export
#else

#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

#define DEVICE __device__ __forceinline__
// A pointer to the dynamic shared memory of the block.
#define HEADCOUNT_SHARED(name) \
  extern __shared__ __align__(1024) unsigned char name[]

namespace headcount::ptx {

// Bulk copies and their barriers exist.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr bool kHasBulkCopy = false;
#else
inline constexpr bool kHasBulkCopy = true;
#endif

// --- Numbers ----------------------------------------------------------------

DEVICE float Bf16ToFloat(uint16_t value) {
  return __uint_as_float(static_cast<uint32_t>(value) << 16);
}
DEVICE float HalfToFloat(uint16_t value) {
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(value));
  return out;
}
// To the nearest, ties to even.
DEVICE uint16_t FloatToBf16(float value) {
  uint16_t out;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(value));
  return out;
}
DEVICE uint16_t FloatToHalf(float value) {
  uint16_t out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(value));
  return out;
}
DEVICE uint32_t PackBf16(float low, float high) {
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
DEVICE uint32_t PackHalf(float low, float high) {
  uint32_t out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
// Of two halves each.
DEVICE uint32_t HalfSub2(uint32_t a, uint32_t b) {
  uint32_t out;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
DEVICE float Exp2(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}
// Byte i of the result is that byte of b:a which nibble i of `selector` names.
DEVICE uint32_t Prmt(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(selector));
  return out;
}
DEVICE uint32_t HalfMul2(uint32_t a, uint32_t b) {
  uint32_t out;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

// Sums of two bf16 numbers each, with one rounding.
DEVICE uint32_t Bf16Add2(uint32_t a, uint32_t b) {
  uint32_t out;  // add.bf16x2 is of sm_90
  asm("fma.rn.bf16x2 %0, %1, %2, %3;"
      : "=r"(out)
      : "r"(a), "r"(0x3F803F80u), "r"(b));
  return out;
}

// --- Memory -----------------------------------------------------------------

struct alignas(16) Float4 {
  float x, y, z, w;
};

template <class T>
DEVICE T Load(const T* from) {
  return *from;
}
template <class T>
DEVICE void Store(T value, T* to) {
  *to = value;
}
// From the L2 cache: what another block may have written meanwhile.
DEVICE float LoadGlobal(const float* from) {
  float out;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(out) : "l"(from) : "memory");
  return out;
}
DEVICE Float4 LoadGlobalFloat4(const float* from) {
  Float4 out;
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(out.x), "=f"(out.y), "=f"(out.z), "=f"(out.w)
               : "l"(from)
               : "memory");
  return out;
}
DEVICE void LoadGlobal16(const void* from, uint32_t (&words)[4]) {
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "l"(from)
               : "memory");
}

// The same of what no kernel writes and no block reads twice: it takes no room
// in the cache of the block.
DEVICE void LoadStream16(const void* from, uint32_t (&words)[4]) {
  asm volatile(
      "ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
      : "l"(from));
}

// From shared memory, by all lanes of a warp. Eight lanes at a time share the
// banks.
DEVICE void LoadShared16(const void* shared, uint32_t (&words)[4]) {
  const uint4 four = *static_cast<const uint4*>(shared);
  words[0] = four.x;
  words[1] = four.y;
  words[2] = four.z;
  words[3] = four.w;
}

DEVICE uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Starts a copy of 16 bytes, of the group that the next commit closes.
DEVICE void CpAsync16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(
                   SharedAddress(shared)),
               "l"(global)
               : "memory");
}
DEVICE void CpAsyncCommit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most so many groups of this thread are on their way.
template <int kGroupsLeft>
DEVICE void CpAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
}

// Waits for `threads` threads, whole warps, at barrier `id`, 1 to 15.
DEVICE void NamedBarrierSync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// An mbarrier: a phase ends when all threads that it expects have arrived, and
// all bytes that they have announced.
struct alignas(8) Barrier {
  uint64_t word;
};
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
DEVICE void BarrierInit(Barrier* barrier, int arrivals) {
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(arrivals)
      : "memory");
}
DEVICE void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Arrives, and announces bytes.
DEVICE void BarrierExpectBytes(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                   SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}
DEVICE void BarrierArrive(Barrier* barrier) {
  asm volatile(
      "mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier))
      : "memory");
}
// Waits for the end of the phase with this parity.
DEVICE void BarrierWait(Barrier* barrier, int parity) {
  int done;
  do {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.b32 %0, 1, 0, p;\n"
        "}"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  } while (done == 0);
}
// Starts a copy whose bytes arrive at `barrier`. Both addresses and the size
// are multiples of 16.
DEVICE void BulkCopy(void* shared, const void* global, int bytes,
                     Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1], %2, [%3];" ::"r"(SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}
// What this thread wrote to shared memory comes before bulk copies to the same
// place, once the threads that start them know of it.
DEVICE void FenceProxyAsync() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Waits until launches that this one was allowed to overlap have ended.
DEVICE void GridDependencyWait() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
// Allows the next launch to begin.
DEVICE void GridDependencyLaunch() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
#else
DEVICE void BarrierInit(Barrier*, int) {}
DEVICE void FenceBarrierInit() {}
DEVICE void BarrierExpectBytes(Barrier*, int) {}
DEVICE void BarrierArrive(Barrier*) {}
DEVICE void BarrierWait(Barrier*, int) {}
DEVICE void BulkCopy(void*, const void*, int, Barrier*) {}
DEVICE void FenceProxyAsync() {}
DEVICE void GridDependencyWait() {}
DEVICE void GridDependencyLaunch() {}
#endif

// --- Matrices ---------------------------------------------------------------

// Four matrices; lane i points at row i % 8 of matrix i / 8.
DEVICE void LdMatrixX4(uint32_t (&words)[4], const void* row) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
      : "r"(SharedAddress(row))
      : "memory");
}
DEVICE void LdMatrixX4Trans(uint32_t (&words)[4], const void* row) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
      : "r"(SharedAddress(row))
      : "memory");
}
DEVICE uint32_t MovMatrixTrans(uint32_t pair) {
  uint32_t out;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}
// sums += a b. a: [16, 16], b: [16, 8].
DEVICE void MmaBf16(float (&sums)[4], const uint32_t (&a)[4],
                    const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void MmaHalf(float (&sums)[4], const uint32_t (&a)[4],
                    const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace headcount::ptx
#endif  // HEADCOUNT_SIMT

namespace headcount::ptx {

// Two e4m3 numbers, the first in the low byte, as halves; exact.
DEVICE uint32_t E4m3PairToHalf2(uint16_t pair) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint32_t out;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(out) : "h"(pair));
  return out;
#else
  // In the place of a half's fields, the value is 2^-8 of what it should be.
  const uint32_t bytes = Prmt(pair, 0, 0x1404);  // each in a half's upper byte
  const uint32_t magnitude = bytes >> 1 & 0x3F803F80u;
  const uint32_t bits = (bytes & 0x80008000u) | magnitude;
  // Of all magnitudes only NaN's, 0x3F80, reaches 0x4000 here.
  const uint32_t nan = (magnitude + 0x00800080u) >> 1 & 0x20002000u;
  return HalfMul2(bits, 0x5C005C00u) | nan;
#endif
}

}  // namespace headcount::ptx
