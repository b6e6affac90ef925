// Sees the plain loads and stores of kernels, for the report of races.
//
// A test that is compiled with -fsanitize=thread calls these functions at each
// access. ThreadSanitizer's own library would give them; a test that links this
// file instead, and not that library, gives its accesses to the emulator. Names
// and meaning are those of compiler-rt/lib/tsan/rtl/tsan_interface.h.
#include <cstddef>
#include <cstdint>

#include "tests/simt/block.h"

namespace {

void See(const void* address, size_t bytes, bool is_write, const void* caller) {
  headcount::simt::Block::SeePlainAccess(
      address, bytes, is_write,
      {.file = static_cast<const char*>(caller),
       .line = headcount::simt::kMachineCode});
}

}  // namespace

// NOLINTBEGIN(bugprone-reserved-identifier, bugprone-macro-parentheses)
#define ACCESS(name, bytes)                                  \
  void __tsan_##name##read##bytes(void* address) {           \
    See(address, bytes, false, __builtin_return_address(0)); \
  }                                                          \
  void __tsan_##name##write##bytes(void* address) {          \
    See(address, bytes, true, __builtin_return_address(0));  \
  }
#define ACCESSES(bytes)     \
  ACCESS(, bytes)           \
  ACCESS(unaligned_, bytes) \
  ACCESS(volatile_, bytes)

// Those of std::atomic, which tests use and kernels do not: done, and no more.
#define FETCH(bits, operation)                                         \
  uint##bits##_t __tsan_atomic##bits##_fetch_##operation(              \
      volatile uint##bits##_t* place, uint##bits##_t value, int) {     \
    return __atomic_fetch_##operation(place, value, __ATOMIC_SEQ_CST); \
  }
#define COMPARE_EXCHANGE(bits, strength)                                    \
  int __tsan_atomic##bits##_compare_exchange_##strength(                    \
      volatile uint##bits##_t* place, uint##bits##_t* expected,             \
      uint##bits##_t value, int, int) {                                     \
    return __atomic_compare_exchange_n(place, expected, value, false,       \
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }
#define ATOMICS(bits)                                              \
  uint##bits##_t __tsan_atomic##bits##_load(                       \
      const volatile uint##bits##_t* place, int) {                 \
    return __atomic_load_n(place, __ATOMIC_SEQ_CST);               \
  }                                                                \
  void __tsan_atomic##bits##_store(volatile uint##bits##_t* place, \
                                   uint##bits##_t value, int) {    \
    __atomic_store_n(place, value, __ATOMIC_SEQ_CST);              \
  }                                                                \
  uint##bits##_t __tsan_atomic##bits##_exchange(                   \
      volatile uint##bits##_t* place, uint##bits##_t value, int) { \
    return __atomic_exchange_n(place, value, __ATOMIC_SEQ_CST);    \
  }                                                                \
  FETCH(bits, add)                                                 \
  FETCH(bits, sub)                                                 \
  FETCH(bits, and)                                                 \
  FETCH(bits, or)                                                  \
  FETCH(bits, xor)                                                 \
  COMPARE_EXCHANGE(bits, strong)                                   \
  COMPARE_EXCHANGE(bits, weak)

extern "C" {

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_read_range(void* address, size_t bytes) {
  See(address, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  See(address, bytes, true, __builtin_return_address(0));
}

ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)

void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
void __tsan_atomic_signal_fence(int) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier, bugprone-macro-parentheses)
