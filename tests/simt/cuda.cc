#include "tests/simt/cuda.h"

#include "tests/simt/block.h"

namespace headcount::simt {

const Dim3& ThreadIndex() { return Block::Current().thread().index; }
const Dim3& BlockIndex() { return Block::Current().index(); }
const Dim3& BlockSize() { return Block::Current().size(); }
const Dim3& GridSize() { return Block::Current().grid(); }
unsigned char* SharedMemory() { return Block::Current().shared(); }

namespace internal {
namespace {

struct Offer {
  uint64_t value;
  int source;
};

void ComputeShuffle(const Meeting& lanes) {
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((lanes.mask >> lane & 1) == 0) continue;
    const int source = static_cast<const Offer*>(lanes.in[lane])->source;
    *static_cast<uint64_t*>(lanes.out[lane]) =
        static_cast<const Offer*>(lanes.in[source])->value;
  }
}

void ComputeBallot(const Meeting& lanes) {
  uint32_t votes = 0;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((lanes.mask >> lane & 1) == 0) continue;
    if (*static_cast<const bool*>(lanes.in[lane])) votes |= 1u << lane;
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((lanes.mask >> lane & 1) == 0) continue;
    *static_cast<uint32_t*>(lanes.out[lane]) = votes;
  }
}

}  // namespace

int Lane() { return static_cast<int>(Block::Current().thread().lane); }

void SyncThreads(Where where) { Block::Current().Sync(0, 0, where); }

void SyncWarp(uint32_t mask, Where where) {
  Block::Current().Meet({.mask = mask,
                         .name = "__syncwarp",
                         .in = nullptr,
                         .out = nullptr,
                         .compute = [](const Meeting&) {},
                         .where = where,
                         .orders_memory = true});
}

uint32_t Ballot(uint32_t mask, bool vote, const char* name, Where where) {
  uint32_t votes = 0;
  Block::Current().Meet({.mask = mask,
                         .name = name,
                         .in = &vote,
                         .out = &votes,
                         .compute = ComputeBallot,
                         .where = where});
  return votes;
}

uint64_t Shuffle(uint32_t mask, uint64_t value, int source, const char* name,
                 Where where) {
  Block& block = Block::Current();
  if ((mask >> source & 1) == 0) {
    block.Fail(std::string(name) + " from lane " + std::to_string(source) +
                   ", which its mask leaves out",
               where);
  }
  const Offer offer = {value, source};
  block.Meet({.mask = mask,
              .name = name,
              .in = &offer,
              .out = &value,
              .compute = ComputeShuffle,
              .where = where});
  return value;
}

}  // namespace internal
}  // namespace headcount::simt
