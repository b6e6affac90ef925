// Loads, stores and copies.
#include <cstring>

#include "tests/simt/block.h"
#include "tests/simt/ptx.h"

namespace headcount::ptx {

using simt::Block;

void SeeLoad(const void* pointer, size_t bytes, Where where) {
  Block& block = Block::Current();
  block.CheckGlobal(pointer, bytes, bytes, "a load", where);
  block.CountRead(pointer, bytes, where);
}

void SeeStore(void* pointer, size_t bytes, Where where) {
  Block& block = Block::Current();
  block.CheckGlobal(pointer, bytes, bytes, "a store", where);
  block.CountWritten(pointer, bytes, where);
}

void LoadGlobal16(const void* pointer, uint32_t (&words)[4], Where where) {
  SeeLoad(pointer, sizeof(words), where);
  std::memcpy(words, pointer, sizeof(words));
}

void CpAsync16(void* shared, const void* global, Where where) {
  Block::Current().CopyAsync(shared, global, where);
}

void CpAsyncCommit() { Block::Current().CommitAsync(); }

void CpAsyncWaitFor(size_t groups_left) {
  Block::Current().WaitAsync(groups_left);
}

void BarrierInit(Barrier* barrier, int count, Where where) {
  Block::Current().InitBarrier(&barrier->word, count, where);
}

void FenceBarrierInit() { Block::Current().FenceBarriers(); }

void BarrierExpectBytes(Barrier* barrier, unsigned bytes, Where where) {
  Block::Current().ExpectBytes(&barrier->word, bytes, where);
}

void BarrierArrive(Barrier* barrier, Where where) {
  Block::Current().Arrive(&barrier->word, where);
}

void BarrierWait(Barrier* barrier, unsigned parity, Where where) {
  Block::Current().WaitPhase(&barrier->word, parity, where);
}

void BulkCopy(void* shared, const void* global, unsigned bytes,
              Barrier* barrier, Where where) {
  Block::Current().CopyBulk(shared, global, bytes, &barrier->word, where);
}

void NamedBarrierSync(int id, int threads, Where where) {
  Block& block = Block::Current();
  if (id < 1 || id >= simt::kNamedBarriers) {
    block.Fail("NamedBarrierSync of barrier " + std::to_string(id) +
                   ", which is not one of 1 to 15",
               where);
  }
  if (threads <= 0 || threads % int{simt::kWarpSize} != 0) {
    block.Fail("NamedBarrierSync of " + std::to_string(threads) +
                   " threads, which are not whole warps",
               where);
  }
  block.Sync(id, static_cast<unsigned>(threads), where);
}

}  // namespace headcount::ptx
