// cp.async: copies that their thread waits for.
#include <cstring>

#include "tests/simt/block.h"

namespace headcount::simt {
namespace {

constexpr size_t kBytes = 16;
constexpr const char* kName = "CpAsync16";

}  // namespace

void Block::CopyAsync(void* to, const void* from, Where where) {
  CheckShared(to, kBytes, kBytes, kName, where);
  CheckGlobal(from, kBytes, kBytes, kName, where);
  CountCopied(from, kBytes, where);
  ++counters_.async_copies;
  if (options_.races) {
    Report(races_.BeginCopy(AccessTo(to, kBytes, where)), kName, where);
  }
  AsyncCopy copy = {.to = static_cast<unsigned char*>(to),
                    .from = static_cast<const unsigned char*>(from),
                    .bytes = kBytes,
                    .where = where};
  const Delivery when = delivery();
  if (when == Delivery::kImmediate ||
      (when == Delivery::kRandom && Random() % 2 == 0)) {
    std::memcpy(copy.to, copy.from, copy.bytes);
    copy.delivered = true;
  }
  thread_->copies.push_back(copy);
}

void Block::CommitAsync() { thread_->groups.push_back(thread_->copies.size()); }

void Block::WaitAsync(size_t groups_left) {
  std::vector<size_t>& groups = thread_->groups;
  std::vector<AsyncCopy>& copies = thread_->copies;
  if (groups.size() <= groups_left) return;
  const size_t done = groups.size() - groups_left;
  const size_t count = groups[done - 1];
  for (size_t i = 0; i < count; ++i) {
    const AsyncCopy& copy = copies[i];
    if (!copy.delivered) std::memcpy(copy.to, copy.from, copy.bytes);
    if (options_.races) {
      races_.EndCopy(AccessTo(copy.to, copy.bytes, copy.where));
    }
  }
  copies.erase(copies.begin(), copies.begin() + ptrdiff_t(count));
  groups.erase(groups.begin(), groups.begin() + ptrdiff_t(done));
  for (size_t& group : groups) group -= count;
}

}  // namespace headcount::simt
