// What every access of a wrapper of ptx.h goes through.
#include <sstream>

#include "tests/simt/block.h"
#include "tests/simt/buffer.h"

namespace headcount::simt {

void Block::CheckGlobal(const void* pointer, size_t bytes, size_t alignment,
                        const char* name, Where where) {
  const bool aligned = reinterpret_cast<uintptr_t>(pointer) % alignment == 0;
  const bool outside = internal::Memory::TouchesMargin(pointer, bytes);
  if (aligned && !outside) return;
  std::ostringstream out;
  out << name << ": ";
  if (outside) {
    out << bytes << " bytes at " << pointer << " are outside their Buffer";
  } else {
    out << "address " << pointer << " is not a multiple of " << alignment;
  }
  Fail(out.str(), where);
}

void Block::CheckShared(const void* pointer, size_t bytes, size_t alignment,
                        const char* name, Where where) {
  const auto begin = reinterpret_cast<uintptr_t>(pointer);
  const auto shared = reinterpret_cast<uintptr_t>(shared_);
  const uintptr_t offset = begin - shared;  // huge if before
  const bool inside =
      offset <= shared_bytes_ && bytes <= shared_bytes_ - offset;
  if (inside && offset % alignment == 0) return;
  std::ostringstream out;
  out << name << ": ";
  if (inside) {
    out << "offset " << offset << " in shared memory is not a multiple of "
        << alignment;
  } else {
    out << bytes << " bytes at offset " << static_cast<ptrdiff_t>(offset)
        << " are not within the " << shared_bytes_ << " bytes of shared memory";
  }
  Fail(out.str(), where);
}

void Block::CountRead(const void* global, size_t bytes, Where where) {
  counters_.sectors_read +=
      sectors_.Access(thread_->warp, thread_->lane, global, bytes, where);
  counters_.sectors_moved += sectors_.Touch(global, bytes, false);
}

void Block::CountWritten(const void* global, size_t bytes, Where where) {
  counters_.sectors_written +=
      sectors_.Access(thread_->warp, thread_->lane, global, bytes, where);
  counters_.sectors_moved += sectors_.Touch(global, bytes, true);
}

void Block::CountCopied(const void* global, size_t bytes, Where where) {
  const int64_t sectors =
      sectors_.Access(thread_->warp, thread_->lane, global, bytes, where);
  counters_.sectors_read += sectors;
  counters_.sectors_moved += sectors;
}

Races::Access Block::AccessTo(const void* shared, size_t bytes,
                              Where where) const {
  const auto* begin = static_cast<const unsigned char*>(shared);
  return {.thread = thread_->linear,
          .offset = static_cast<size_t>(begin - shared_),
          .bytes = bytes,
          .where = where};
}

void Block::ReadShared(const void* shared, size_t bytes, const char* name,
                       Where where) {
  if (!options_.races) return;
  Report(races_.Read(AccessTo(shared, bytes, where)), name, where);
}

void Block::WriteShared(const void* shared, size_t bytes, const char* name,
                        Where where) {
  if (!options_.races) return;
  Report(races_.Write(AccessTo(shared, bytes, where)), name, where);
}

void Block::Report(const std::optional<Races::Conflict>& conflict,
                   const char* name, Where where) {
  if (!conflict.has_value()) return;
  std::ostringstream out;
  out << "race: " << name << " at offset " << conflict->offset
      << " in shared memory, which ";
  if (conflict->thread.has_value()) {
    out << "thread " << *conflict->thread;
  } else {
    out << "a BulkCopy";
  }
  out << (conflict->is_write ? " writes" : " reads")
      << PlaceName(conflict->where);
  if (conflict->in_flight) {
    out << "; this thread has not waited for that copy";
  } else {
    out << "; no barrier is between";
  }
  Fail(out.str(), where);
}

}  // namespace headcount::simt
