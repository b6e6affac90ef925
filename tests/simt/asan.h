// AddressSanitizer's words, or nothing where it is off.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define HEADCOUNT_SIMT_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEADCOUNT_SIMT_ASAN
#endif
#endif

#if defined(HEADCOUNT_SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace headcount::simt {

#if defined(HEADCOUNT_SIMT_ASAN)
inline void AsanPoison(void* begin, size_t bytes) {
  __asan_poison_memory_region(begin, bytes);
}
inline void AsanUnpoison(void* begin, size_t bytes) {
  __asan_unpoison_memory_region(begin, bytes);
}
#else
inline void AsanPoison(void*, size_t) {}
inline void AsanUnpoison(void*, size_t) {}
#endif

}  // namespace headcount::simt
