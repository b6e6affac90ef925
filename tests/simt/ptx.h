// The wrappers of src/backend/cuda/ptx.h on the CPU. Contracts are there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "tests/simt/cuda.h"

#define DEVICE inline

namespace headcount::ptx {

using simt::Where;

inline constexpr bool kHasBulkCopy = true;

// Numbers.
float Bf16ToFloat(uint16_t value);
float HalfToFloat(uint16_t value);
uint16_t FloatToBf16(float value);
uint16_t FloatToHalf(float value);
uint32_t PackBf16(float low, float high);
uint32_t PackHalf(float low, float high);
float Exp2(float value);
uint32_t Prmt(uint32_t a, uint32_t b, uint32_t selector);
uint32_t HalfSub2(uint32_t a, uint32_t b);
uint32_t HalfMul2(uint32_t a, uint32_t b);
uint32_t Bf16Add2(uint32_t a, uint32_t b);

// Tensor cores.
void LdMatrixX4(uint32_t (&matrices)[4], const void* row,
                Where where = Where::Here());
void LdMatrixX4Trans(uint32_t (&matrices)[4], const void* row,
                     Where where = Where::Here());
uint32_t MovMatrixTrans(uint32_t matrix, Where where = Where::Here());
void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
             Where where = Where::Here());
void MmaHalf(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
             Where where = Where::Here());

// Memory.
struct alignas(16) Float4 {
  float x, y, z, w;
};
void SeeLoad(const void* pointer, size_t bytes, Where where);
void SeeStore(void* pointer, size_t bytes, Where where);
template <class T>
T Load(const T* pointer, Where where = Where::Here()) {
  SeeLoad(pointer, sizeof(T), where);
  return *pointer;
}
template <class T>
void Store(std::type_identity_t<T> value, T* pointer,
           Where where = Where::Here()) {
  SeeStore(pointer, sizeof(T), where);
  *pointer = value;
}
inline float LoadGlobal(const float* pointer, Where where = Where::Here()) {
  return Load(pointer, where);
}
inline Float4 LoadGlobalFloat4(const float* pointer,
                               Where where = Where::Here()) {
  SeeLoad(pointer, sizeof(Float4), where);
  return *reinterpret_cast<const Float4*>(pointer);
}
void LoadGlobal16(const void* pointer, uint32_t (&words)[4],
                  Where where = Where::Here());
void LoadShared16(const void* shared, uint32_t (&words)[4],
                  Where where = Where::Here());
inline void LoadStream16(const void* pointer, uint32_t (&words)[4],
                         Where where = Where::Here()) {
  LoadGlobal16(pointer, words, where);
}

// Copies by threads.
void CpAsync16(void* shared, const void* global, Where where = Where::Here());
void CpAsyncCommit();
void CpAsyncWaitFor(size_t groups_left);
template <int kGroupsLeft>
void CpAsyncWait() {
  CpAsyncWaitFor(kGroupsLeft);
}

// Copies by the machine.
struct alignas(8) Barrier {
  uint64_t word;
};
static_assert(sizeof(Barrier) == 8);
void BarrierInit(Barrier* barrier, int count, Where where = Where::Here());
void FenceBarrierInit();
void BarrierExpectBytes(Barrier* barrier, unsigned bytes,
                        Where where = Where::Here());
void BarrierArrive(Barrier* barrier, Where where = Where::Here());
void BarrierWait(Barrier* barrier, unsigned parity,
                 Where where = Where::Here());
void BulkCopy(void* shared, const void* global, unsigned bytes,
              Barrier* barrier, Where where = Where::Here());
inline void FenceProxyAsync() {}

void NamedBarrierSync(int id, int threads, Where where = Where::Here());

inline void GridDependencyWait() {}
inline void GridDependencyLaunch() {}

}  // namespace headcount::ptx
