#include "tests/simt/buffer.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>

#include "tests/simt/asan.h"

namespace headcount::simt::internal {
namespace {

constexpr unsigned char kPoison = 0xFF;
constexpr std::align_val_t kAlignment{128};

// Begin -> end of what is between the margins.
std::map<uintptr_t, uintptr_t>& Buffers() {
  static std::map<uintptr_t, uintptr_t> buffers;
  return buffers;
}

bool IsPoison(const unsigned char* begin, size_t bytes) {
  return std::all_of(begin, begin + bytes,
                     [](unsigned char byte) { return byte == kPoison; });
}

}  // namespace

Memory::Memory(size_t bytes) : bytes_(bytes) {
  const size_t all = bytes + 2 * kMarginBytes;
  allocated_ = static_cast<unsigned char*>(::operator new(all, kAlignment));
  std::memset(allocated_, kPoison, all);
  data_ = allocated_ + kMarginBytes;
  const auto begin = reinterpret_cast<uintptr_t>(data_);
  Buffers()[begin] = begin + bytes;
  AsanPoison(allocated_, kMarginBytes);
  AsanPoison(data_ + bytes, kMarginBytes);
}

Memory::~Memory() {
  AsanUnpoison(allocated_, kMarginBytes);
  AsanUnpoison(data_ + bytes_, kMarginBytes);
  Buffers().erase(reinterpret_cast<uintptr_t>(data_));
  if (!IsPoison(allocated_, kMarginBytes) ||
      !IsPoison(data_ + bytes_, kMarginBytes)) {
    std::fputs("simt: a kernel wrote outside a Buffer\n", stderr);
    std::abort();
  }
  ::operator delete(allocated_, kAlignment);
}

bool Memory::TouchesMargin(const void* address, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  const auto end = begin + bytes;
  // Margins do not overlap, so only the buffers around `begin` matter.
  const auto next = Buffers().upper_bound(begin);
  if (next != Buffers().end() && end > next->first - kMarginBytes) return true;
  if (next == Buffers().begin()) return false;
  const uintptr_t last = std::prev(next)->second;
  return end > last && begin < last + kMarginBytes;
}

}  // namespace headcount::simt::internal
