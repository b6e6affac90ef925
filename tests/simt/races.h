// Finds accesses to shared memory that no barrier keeps apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "tests/simt/simt.h"

namespace headcount::simt {

// Vector clocks (as in FastTrack, Flanagan and Freund 2009): each thread knows
// how far it has seen each other thread come. What orders two accesses: the
// same thread, __syncthreads, a named barrier, __syncwarp, an arrival at a
// Barrier and the wait for its phase, and for copies their wait. Shuffles,
// votes and mma make lanes meet but order no memory.
//
// Remembers for each four bytes the last write and two reads, so it may miss a
// race of many, but what it reports is one.
class Races {
 public:
  static constexpr size_t kMaxBarriers = 64;

  struct Conflict {
    size_t offset;                   // in shared memory
    bool is_write;                   // the earlier access
    bool in_flight;                  // it is a copy for which nobody has waited
    std::optional<unsigned> thread;  // whose it was; none: a bulk copy
    Where where;
  };

  void Resize(size_t threads, size_t shared_bytes);
  void BeginBlock();
  void InitBarrier(size_t barrier);

  // What orders.
  void SyncAll();
  void Join(const std::vector<unsigned>& threads);
  void Arrive(unsigned thread, size_t barrier);
  void CompletePhase(size_t barrier, uint64_t phase);
  void Wait(unsigned thread, size_t barrier);

  // What is ordered. `offset`: in shared memory.
  struct Access {
    unsigned thread;
    size_t offset, bytes;
    Where where;
  };
  std::optional<Conflict> Read(const Access& access);
  std::optional<Conflict> Write(const Access& access);
  // cp.async: in flight until its thread has waited for it.
  std::optional<Conflict> BeginCopy(const Access& access);
  void EndCopy(const Access& access);
  // BulkCopy: in flight for all who have not waited for `phase` of `barrier`.
  std::optional<Conflict> BulkCopy(const Access& access, size_t barrier,
                                   uint64_t phase);

 private:
  static constexpr size_t kCellBytes = 4;

  struct Record {
    uint32_t epoch = 0;  // calls of SyncAll and BeginBlock before it
    uint32_t clock = 0;  // of the thread; of a bulk copy: phase + 1
    uint16_t who = 0;    // thread, or number of threads + barrier
    uint16_t place = 0;  // in places_
    uint8_t bytes = 0;   // which of the cell's, a bit each
    bool in_flight = false;
  };
  struct Cell {
    Record write;
    Record reads[2];
  };
  // What is known of threads and of phases of barriers.
  using Clock = std::vector<uint32_t>;

  bool IsOrdered(const Record& earlier, unsigned thread) const;
  std::optional<Conflict> FindConflict(const Access& access, bool is_write);
  Conflict Describe(const Record& record, size_t cell, bool is_write) const;
  Record RecordOf(const Access& access);
  void SetWrites(const Access& access, Record record);
  uint16_t PlaceOf(Where where);

  size_t threads_ = 0;
  uint32_t epoch_ = 0;
  uint32_t first_epoch_ = 0;  // of this block
  size_t barriers_ = 0;
  std::vector<Clock> clocks_;           // of each thread
  std::vector<Clock> arrived_;          // at each barrier
  std::vector<Clock> completed_;        // what those who wait for it learn
  std::vector<uint32_t> known_to_all_;  // phases, of each barrier
  std::vector<Cell> cells_;
  std::vector<Where> places_;
  uint16_t last_place_ = 0;
  std::unordered_map<uint64_t, uint16_t> place_of_;
};

}  // namespace headcount::simt
