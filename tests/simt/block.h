// The block of threads that runs: what the emulated instructions work on. Tests
// and kernels need simt.h and cuda.h only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "tests/simt/fiber.h"
#include "tests/simt/races.h"
#include "tests/simt/sectors.h"
#include "tests/simt/simt.h"

namespace headcount::simt {

inline constexpr unsigned kWarpSize = 32;
inline constexpr int kNamedBarriers = 16;  // 0 is that of __syncthreads

// Bytes on their way to shared memory.
struct AsyncCopy {
  unsigned char* to;
  const unsigned char* from;
  size_t bytes;
  size_t barrier = 0;  // bulk copies: index of that which counts the bytes
  Where where;
  bool delivered = false;
};

// What a thread waits for: that `*counter` differs from `value`.
struct Wait {
  const uint64_t* counter = nullptr;
  uint64_t value = 0;
  std::string (*describe)(const Wait&) = nullptr;
  const void* object = nullptr;  // of `describe`
  Where where;
};

struct Thread {
  Point point;
  Dim3 index;
  unsigned linear = 0, warp = 0, lane = 0;
  bool done = false;
  // Null if it can run. On the thread's own stack: it is there while it waits.
  const Wait* wait = nullptr;
  // cp.async: on their way, and how many of them each group had seen issued.
  std::vector<AsyncCopy> copies;
  std::vector<size_t> groups;

  bool CanRun() const {
    return !done && (wait == nullptr || *wait->counter != wait->value);
  }
};

// Lanes of one mask that come together. What they give and get is on their
// stacks, where it is as long as they wait.
struct Meeting {
  uint32_t mask = 0;
  uint32_t here = 0;
  const char* name = "";  // of the instruction
  Where where;
  uint64_t generation = 0;
  const void* in[kWarpSize];
  void* out[kWarpSize];
};

struct Warp {
  // Lanes that diverged meet in groups of their own, this many at a time.
  static constexpr int kMeetings = 4;

  uint32_t alive = 0;
  Meeting meetings[kMeetings];
};

struct NamedBarrier {
  int id = 0;
  unsigned here = 0;
  unsigned wanted = 0;
  uint64_t generation = 0;
  Where where;                    // of the thread that came first
  std::vector<unsigned> threads;  // that wait
};

// An mbarrier. It is complete when nothing is pending and all bytes came.
struct BarrierState {
  size_t offset = 0;  // in shared memory
  uint64_t phase = 0;
  int count = 0;
  int pending = 0;
  int64_t bytes = 0;
  bool fenced = false;
};

// The line of a place that is known by its address in the program; its file is
// that address.
inline constexpr int kMachineCode = -1;

// " at file.cuh:12".
std::string PlaceName(Where where);

class Block {
 public:
  // Runs all blocks of a grid one after another.
  static Counters RunGrid(const Options& options, Dim3 grid, Dim3 block,
                          size_t shared_bytes,
                          const std::function<void()>& thread);

  // The block that runs and its thread that runs.
  static Block& Current();
  Thread& thread() { return *thread_; }
  const Dim3& index() const { return index_; }
  const Dim3& size() const { return size_; }
  const Dim3& grid() const { return grid_; }
  unsigned char* shared() { return shared_; }
  Counters& counters() { return counters_; }

  // Ends the process with a report: what happened, to whom, and where each
  // thread is.
  [[noreturn]] void Fail(const std::string& what, Where where);

  // Lets others run until `*wait.counter` differs from `wait.value`.
  void WaitFor(const Wait& wait);

  // Waits for `count` threads at barrier `id`; 0: all that have not ended.
  void Sync(int id, unsigned count, Where where);

  // Lanes of `mask` meet: each gives `in`, and has `out` once the last of them
  // has called `compute` for all.
  struct Exchange {
    uint32_t mask;
    const char* name;
    const void* in;
    void* out;
    void (*compute)(const Meeting& lanes);
    Where where;
    // All lanes of the warp, at the same place: what PTX calls .aligned.
    bool aligned = false;
    bool orders_memory = false;
  };
  void Meet(const Exchange& exchange);

  // cp.async of 16 bytes.
  void CopyAsync(void* to, const void* from, Where where);
  void CommitAsync();
  void WaitAsync(size_t groups_left);

  // mbarriers, and the copies that report to them. `word` is the barrier.
  void InitBarrier(uint64_t* word, int count, Where where);
  void FenceBarriers();
  void ExpectBytes(uint64_t* word, unsigned bytes, Where where);
  void Arrive(uint64_t* word, Where where);
  void WaitPhase(uint64_t* word, unsigned parity, Where where);
  void CopyBulk(void* to, const void* from, size_t bytes, uint64_t* word,
                Where where);

  // Fails unless [pointer, pointer + bytes) is in shared memory and aligned.
  void CheckShared(const void* pointer, size_t bytes, size_t alignment,
                   const char* name, Where where);
  // Fails unless `pointer` is aligned and the bytes are in no Buffer's margin.
  void CheckGlobal(const void* pointer, size_t bytes, size_t alignment,
                   const char* name, Where where);

  // A thread's access to shared memory, for the report of races.
  void ReadShared(const void* shared, size_t bytes, const char* name,
                  Where where);
  void WriteShared(const void* shared, size_t bytes, const char* name,
                   Where where);

  // A plain load or store by a kernel, where tests are compiled so that these
  // are seen: see plain_accesses.cc.
  static void SeePlainAccess(const void* address, size_t bytes, bool is_write,
                             Where where);

  // Count the sectors of one lane's access.
  void CountRead(const void* global, size_t bytes, Where where);
  void CountWritten(const void* global, size_t bytes, Where where);
  void CountCopied(const void* global, size_t bytes, Where where);

 private:
  Block() = default;

  void Resize(Dim3 grid, Dim3 block, size_t shared_bytes);
  void Run(Dim3 index);
  static void ThreadEntry();
  void EndThread();

  // Lets the next thread that can run go on.
  void Yield();
  Thread* NextThread();

  void ReleaseBarrier(int id);
  void OrderLanes(uint32_t mask);
  // Fails if there is a conflict.
  void Report(const std::optional<Races::Conflict>& conflict, const char* name,
              Where where);
  Races::Access AccessTo(const void* shared, size_t bytes, Where where) const;
  [[noreturn]] void FailDeadlock();
  Meeting& MeetingOf(const Exchange& exchange);

  Delivery delivery() const;
  uint64_t Random();
  void Deliver(size_t bulk_copy);
  // One bulk copy that a thread waits for. False if there is none.
  bool DeliverLate();
  void DeliverRandomly();
  // Index in barrier_states_.
  size_t BarrierOf(uint64_t* word, const char* name, Where where);
  void CompletePhase(size_t barrier);
  void CheckEnd();

  Options options_;
  const std::function<void()>* kernel_ = nullptr;
  Dim3 index_, size_, grid_;
  Stacks stacks_;
  Point launcher_;
  std::vector<Thread> threads_;
  std::vector<unsigned> order_;     // in which threads run
  std::vector<unsigned> position_;  // of each thread in order_
  std::vector<Warp> warps_;
  NamedBarrier barriers_[kNamedBarriers];
  unsigned left_ = 0;         // threads that have not ended
  Thread* thread_ = nullptr;  // that runs; null between blocks
  std::vector<unsigned char> shared_memory_;
  unsigned char* shared_ = nullptr;  // 128-byte aligned
  size_t shared_bytes_ = 0;
  std::deque<BarrierState> barrier_states_;
  std::vector<AsyncCopy> bulk_copies_;
  uint64_t random_ = 1;
  Races races_;
  Sectors sectors_;
  Counters counters_;
};

}  // namespace headcount::simt
