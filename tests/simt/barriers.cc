// mbarriers, and the bulk copies that report to them.
#include <cstring>
#include <sstream>

#include "tests/simt/block.h"

namespace headcount::simt {
namespace {

constexpr size_t kCopyAlignment = 16;
// What a barrier holds: this and its index. Whoever writes over it is found
// out.
constexpr uint64_t kMark = 0x6261727200000000;  // "barr"
constexpr uint64_t kMarkMask = 0xFFFFFFFF00000000;
// Range of an mbarrier's count and of its bytes (PTX ISA, mbarrier).
constexpr int kMaxCount = (1 << 20) - 1;

std::string DescribePhase(const Wait& wait) {
  const auto* barrier = static_cast<const BarrierState*>(wait.object);
  std::ostringstream out;
  out << "a Barrier at offset " << barrier->offset << " in phase "
      << barrier->phase << ", which lacks " << barrier->pending << " of "
      << barrier->count << " arrivals and " << barrier->bytes << " bytes";
  return out.str();
}

int64_t SectorsOf(const void* global, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(global);
  return static_cast<int64_t>((begin + bytes - 1) / Sectors::kBytes -
                              begin / Sectors::kBytes + 1);
}

}  // namespace

void Block::InitBarrier(uint64_t* word, int count, Where where) {
  CheckShared(word, sizeof(*word), sizeof(*word), "BarrierInit", where);
  if (count < 1 || count > kMaxCount) {
    Fail("BarrierInit with a count of " + std::to_string(count), where);
  }
  if ((*word & kMarkMask) == kMark) {
    Fail("BarrierInit of what is a Barrier already", where);
  }
  const size_t index = barrier_states_.size();
  if (index == Races::kMaxBarriers) {
    Fail("BarrierInit: a block has at most 64 Barriers here", where);
  }
  if (options_.races) races_.InitBarrier(index);
  *word = kMark | index;
  const auto* begin = reinterpret_cast<const unsigned char*>(word);
  barrier_states_.push_back({.offset = static_cast<size_t>(begin - shared_),
                             .count = count,
                             .pending = count});
}

void Block::FenceBarriers() {
  for (BarrierState& barrier : barrier_states_) barrier.fenced = true;
}

size_t Block::BarrierOf(uint64_t* word, const char* name, Where where) {
  CheckShared(word, sizeof(*word), sizeof(*word), name, where);
  const size_t index = *word & ~kMarkMask;
  const auto* begin = reinterpret_cast<const unsigned char*>(word);
  if ((*word & kMarkMask) != kMark || index >= barrier_states_.size() ||
      shared_ + barrier_states_[index].offset != begin) {
    Fail(std::string(name) +
             " of what is no Barrier: not initialised, or written over",
         where);
  }
  return index;
}

void Block::CompletePhase(size_t index) {
  BarrierState& barrier = barrier_states_[index];
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  if (options_.races) races_.CompletePhase(index, barrier.phase);
  barrier.pending = barrier.count;
  ++barrier.phase;
}

void Block::Arrive(uint64_t* word, Where where) {
  const size_t index = BarrierOf(word, "BarrierArrive", where);
  BarrierState& barrier = barrier_states_[index];
  if (barrier.pending == 0) {
    Fail("BarrierArrive, and all arrivals of the phase were there", where);
  }
  if (options_.races) races_.Arrive(thread_->linear, index);
  --barrier.pending;
  CompletePhase(index);
}

void Block::ExpectBytes(uint64_t* word, unsigned bytes, Where where) {
  const size_t index = BarrierOf(word, "BarrierExpectBytes", where);
  BarrierState& barrier = barrier_states_[index];
  if (bytes > unsigned{kMaxCount} ||
      barrier.bytes + int64_t{bytes} > kMaxCount) {
    Fail("BarrierExpectBytes: with " + std::to_string(bytes) +
             " more, these are more bytes than a Barrier counts",
         where);
  }
  barrier.bytes += bytes;
  Arrive(word, where);
}

void Block::WaitPhase(uint64_t* word, unsigned parity, Where where) {
  const size_t index = BarrierOf(word, "BarrierWait", where);
  if (parity > 1) {
    Fail("BarrierWait with parity " + std::to_string(parity), where);
  }
  const BarrierState& barrier = barrier_states_[index];
  while ((barrier.phase & 1) == parity) {
    WaitFor({&barrier.phase, barrier.phase, DescribePhase, &barrier, where});
  }
  if (options_.races) races_.Wait(thread_->linear, index);
}

void Block::CopyBulk(void* to, const void* from, size_t bytes, uint64_t* word,
                     Where where) {
  constexpr const char* kName = "BulkCopy";
  if (bytes == 0 || bytes % kCopyAlignment != 0) {
    Fail("BulkCopy of " + std::to_string(bytes) +
             " bytes, which is no multiple of 16",
         where);
  }
  CheckShared(to, bytes, kCopyAlignment, kName, where);
  CheckGlobal(from, bytes, kCopyAlignment, kName, where);
  const size_t index = BarrierOf(word, kName, where);
  const BarrierState& barrier = barrier_states_[index];
  if (!barrier.fenced) {
    Fail("BulkCopy to a Barrier without FenceBarrierInit", where);
  }
  ++counters_.bulk_copies;
  counters_.sectors_read += SectorsOf(from, bytes);
  counters_.sectors_moved += SectorsOf(from, bytes);
  if (options_.races) {
    Report(races_.BulkCopy(AccessTo(to, bytes, where), index, barrier.phase),
           kName, where);
  }
  bulk_copies_.push_back({.to = static_cast<unsigned char*>(to),
                          .from = static_cast<const unsigned char*>(from),
                          .bytes = bytes,
                          .barrier = index,
                          .where = where});
  if (delivery() == Delivery::kImmediate) Deliver(bulk_copies_.size() - 1);
}

void Block::Deliver(size_t bulk_copy) {
  const AsyncCopy copy = bulk_copies_[bulk_copy];
  bulk_copies_.erase(bulk_copies_.begin() + ptrdiff_t(bulk_copy));
  std::memcpy(copy.to, copy.from, copy.bytes);
  barrier_states_[copy.barrier].bytes -= static_cast<int64_t>(copy.bytes);
  CompletePhase(copy.barrier);
}

bool Block::DeliverLate() {
  for (size_t i = 0; i < bulk_copies_.size(); ++i) {
    const BarrierState& barrier = barrier_states_[bulk_copies_[i].barrier];
    for (const Thread& thread : threads_) {
      if (!thread.CanRun() && !thread.done &&
          thread.wait->counter == &barrier.phase) {
        Deliver(i);
        return true;
      }
    }
  }
  return false;
}

void Block::DeliverRandomly() {
  if (bulk_copies_.empty() || Random() % 4 != 0) return;
  Deliver(Random() % bulk_copies_.size());
}

void Block::CheckEnd() {
  if (bulk_copies_.empty()) return;
  Fail("the block ended before a BulkCopy had arrived",
       bulk_copies_.front().where);
}

}  // namespace headcount::simt
