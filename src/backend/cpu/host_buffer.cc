#include "backend/cpu/host_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace headcount {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<HostBuffer>> HostBuffer::Create(int64_t bytes) {
  CHECK(bytes >= 0) << "buffer of " << bytes << " bytes";
  const size_t wanted = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  const bool large = wanted >= kHugePage;
  const size_t mapped = large ? wanted + kHugePage : wanted;
  void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot reserve ", bytes, " bytes of memory: ", std::strerror(errno)));
  }
  char* data = static_cast<char*>(mapping);
  if (large) {
    const size_t past = reinterpret_cast<uintptr_t>(data) % kHugePage;
    if (past != 0) data += kHugePage - past;
    // Advice: where it is not taken, pages are merely smaller.
    madvise(data, wanted, MADV_HUGEPAGE);
  }
  return std::unique_ptr<HostBuffer>(
      new HostBuffer(mapping, mapped, data, bytes));
}

HostBuffer::~HostBuffer() { munmap(mapping_, mapped_bytes_); }

}  // namespace headcount
