// Barriers of blocks, and what the lanes of a warp do together.
#include <cstring>
#include <sstream>

#include "tests/simt/block.h"

namespace headcount::simt {
namespace {

std::string DescribeBarrier(const Wait& wait) {
  const auto* barrier = static_cast<const NamedBarrier*>(wait.object);
  std::ostringstream out;
  if (barrier->id == 0) {
    out << "__syncthreads";
  } else {
    out << "NamedBarrierSync " << barrier->id;
  }
  out << ", where " << barrier->here << " of " << barrier->wanted
      << " threads are";
  return out.str();
}

std::string DescribeMeeting(const Wait& wait) {
  const auto* meeting = static_cast<const Meeting*>(wait.object);
  std::ostringstream out;
  out << meeting->name << std::hex << " of lanes 0x" << meeting->mask
      << ", of which 0x" << (meeting->mask & ~meeting->here) << " are missing";
  return out.str();
}

}  // namespace

void Block::Sync(int id, unsigned count, Where where) {
  NamedBarrier& barrier = barriers_[id];
  barrier.id = id;
  if (id == 0) count = left_;
  if (barrier.here == 0) {
    barrier.where = where;
    barrier.wanted = count;
  } else if (id == 0 && !(barrier.where == where)) {
    Fail("divergent __syncthreads: others wait in line " +
             std::to_string(barrier.where.line),
         where);
  } else if (id != 0 && barrier.wanted != count) {
    Fail("NamedBarrierSync of " + std::to_string(count) +
             " threads, where others wait for " +
             std::to_string(barrier.wanted),
         where);
  }
  const uint64_t generation = barrier.generation;
  barrier.threads.push_back(thread_->linear);
  if (++barrier.here == count) {
    ReleaseBarrier(id);
    return;
  }
  WaitFor({&barrier.generation, generation, DescribeBarrier, &barrier, where});
}

void Block::ReleaseBarrier(int id) {
  NamedBarrier& barrier = barriers_[id];
  if (options_.races && id == 0) races_.SyncAll();
  if (options_.races && id != 0) races_.Join(barrier.threads);
  barrier.threads.clear();
  barrier.here = 0;
  ++barrier.generation;
  ++counters_.barriers;
}

Meeting& Block::MeetingOf(const Exchange& exchange) {
  Warp& warp = warps_[thread_->warp];
  const uint32_t mask = exchange.mask;
  if ((mask >> thread_->lane & 1) == 0) {
    Fail(std::string(exchange.name) + " by a lane that its mask leaves out",
         exchange.where);
  }
  if ((mask & ~warp.alive) != 0) {
    Fail(std::string(exchange.name) +
             " with a mask that names a lane that has ended",
         exchange.where);
  }
  for (Meeting& meeting : warp.meetings) {
    if (meeting.mask == mask) return meeting;
  }
  for (Meeting& meeting : warp.meetings) {
    if (meeting.here == 0) {
      meeting.mask = mask;
      return meeting;
    }
  }
  Fail(std::string(exchange.name) + ": lanes wait with " +
           std::to_string(Warp::kMeetings) + " other masks already",
       exchange.where);
}

void Block::OrderLanes(uint32_t mask) {
  if (!options_.races) return;
  std::vector<unsigned> threads;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1) != 0) {
      threads.push_back(thread_->warp * kWarpSize + lane);
    }
  }
  races_.Join(threads);
}

void Block::Meet(const Exchange& exchange) {
  Meeting& meeting = MeetingOf(exchange);
  if (meeting.here == 0) {
    meeting.name = exchange.name;
    meeting.where = exchange.where;
  } else if ((meeting.name != exchange.name &&
              std::strcmp(meeting.name, exchange.name) != 0) ||
             (exchange.aligned && !(meeting.where == exchange.where))) {
    Fail(std::string(exchange.name) +
             ", where other lanes of the warp are at " + meeting.name +
             " in line " + std::to_string(meeting.where.line),
         exchange.where);
  }
  const uint64_t generation = meeting.generation;
  meeting.in[thread_->lane] = exchange.in;
  meeting.out[thread_->lane] = exchange.out;
  meeting.here |= 1u << thread_->lane;
  if (meeting.here == meeting.mask) {
    exchange.compute(meeting);
    if (exchange.orders_memory) OrderLanes(meeting.mask);
    meeting.here = 0;
    ++meeting.generation;
    ++counters_.collectives;
  } else {
    WaitFor({&meeting.generation, generation, DescribeMeeting, &meeting,
             exchange.where});
  }
}

}  // namespace headcount::simt
