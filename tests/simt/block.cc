#include "tests/simt/block.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>

namespace headcount::simt {
namespace {

// Kept from launch to launch, for its stacks.
Block* current = nullptr;

constexpr int kPoison = 0xFF;  // a NaN in every floating-point type

}  // namespace

std::vector<Options> AllOrders() {
  return {{.order = Order::kForward},
          {.order = Order::kReverse},
          {.order = Order::kShuffled, .seed = 1},
          {.order = Order::kShuffled, .seed = 2},
          {.order = Order::kWarpByWarp}};
}

namespace internal {
Counters Run(const Options& options, Dim3 grid, Dim3 block, size_t shared_bytes,
             const std::function<void()>& thread) {
  return Block::RunGrid(options, grid, block, shared_bytes, thread);
}
}  // namespace internal

Block& Block::Current() { return *current; }

void Block::SeePlainAccess(const void* address, size_t bytes, bool is_write,
                           Where where) {
  if (current == nullptr || current->thread_ == nullptr) return;
  Block& block = *current;
  const auto begin = reinterpret_cast<uintptr_t>(address);
  const auto stack = reinterpret_cast<uintptr_t>(block.thread_->point.stack);
  if (begin - stack < Stacks::kBytes) return;
  const auto shared = reinterpret_cast<uintptr_t>(block.shared_);
  const char* const name = is_write ? "a store" : "a load";
  if (begin - shared >= block.shared_bytes_) {
    block.CheckGlobal(address, bytes, 1, name, where);
  } else if (is_write) {
    block.WriteShared(address, bytes, name, where);
  } else {
    block.ReadShared(address, bytes, name, where);
  }
}

Counters Block::RunGrid(const Options& options, Dim3 grid, Dim3 block,
                        size_t shared_bytes,
                        const std::function<void()>& thread) {
  static const std::unique_ptr<Block> only(new Block);
  Block& b = *only;
  current = &b;
  b.options_ = options;
  b.kernel_ = &thread;
  b.counters_ = {};
  b.random_ = options.seed * 2 + 1;
  b.Resize(grid, block, shared_bytes);
  std::vector<size_t> blocks(grid.Volume());
  std::iota(blocks.begin(), blocks.end(), size_t{0});
  if (options.order == Order::kReverse) {
    std::reverse(blocks.begin(), blocks.end());
  } else if (options.order == Order::kShuffled) {
    for (size_t i = blocks.size(); i > 1; --i) {
      std::swap(blocks[i - 1], blocks[b.Random() % i]);
    }
  }
  for (const size_t i : blocks) {
    b.Run(Dim3(static_cast<unsigned>(i % grid.x),
               static_cast<unsigned>(i / grid.x % grid.y),
               static_cast<unsigned>(i / grid.x / grid.y)));
  }
  return b.counters_;
}

void Block::Resize(Dim3 grid, Dim3 block, size_t shared_bytes) {
  grid_ = grid;
  size_ = block;
  const unsigned count = static_cast<unsigned>(block.Volume());
  stacks_.Resize(count);
  threads_.resize(count);
  warps_.resize((count + kWarpSize - 1) / kWarpSize);
  order_.resize(count);
  position_.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads_[i];
    thread.linear = i;
    thread.warp = i / kWarpSize;
    thread.lane = i % kWarpSize;
    thread.index =
        Dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
    order_[i] = options_.order == Order::kReverse ? count - 1 - i : i;
  }
  if (options_.order == Order::kShuffled) {
    for (unsigned i = count; i > 1; --i) {
      std::swap(order_[i - 1], order_[Random() % i]);
    }
  }
  for (unsigned i = 0; i < count; ++i) position_[order_[i]] = i;
  constexpr size_t kAlignment = 128;
  shared_memory_.resize(shared_bytes + kAlignment);
  void* aligned = shared_memory_.data();
  size_t space = shared_memory_.size();
  shared_ = static_cast<unsigned char*>(
      std::align(kAlignment, shared_bytes, aligned, space));
  shared_bytes_ = shared_bytes;
  if (options_.races) races_.Resize(count, shared_bytes);
}

void Block::Run(Dim3 index) {
  index_ = index;
  std::memset(shared_, kPoison, shared_bytes_);
  for (Warp& warp : warps_) {
    warp.alive = 0;
    for (Meeting& meeting : warp.meetings) meeting.mask = meeting.here = 0;
  }
  for (NamedBarrier& barrier : barriers_) {
    barrier.here = 0;
    barrier.threads.clear();
  }
  if (options_.races) races_.BeginBlock();
  barrier_states_.clear();
  bulk_copies_.clear();
  sectors_.Reset(warps_.size());
  for (Thread& thread : threads_) {
    Prepare(&thread.point, stacks_.stack(thread.linear), thread.linear,
            &ThreadEntry);
    thread.done = false;
    thread.wait = nullptr;
    thread.copies.clear();
    thread.groups.clear();
    warps_[thread.warp].alive |= 1u << thread.lane;
  }
  left_ = static_cast<unsigned>(threads_.size());
  thread_ = &threads_[order_[0]];
  Switch(&launcher_, &thread_->point);
  CheckEnd();
  thread_ = nullptr;
}

void Block::ThreadEntry() {
  Entered();
  (*current->kernel_)();
  current->EndThread();
}

void Block::EndThread() {
  Thread& thread = *thread_;
  thread.done = true;
  --left_;
  warps_[thread.warp].alive &= ~(1u << thread.lane);
  // Those that have ended no longer count for __syncthreads.
  NamedBarrier& all = barriers_[0];
  if (all.here > 0 && all.here == left_) ReleaseBarrier(0);
  Yield();
}

Thread* Block::NextThread() {
  const size_t count = threads_.size();
  size_t from = position_[thread_->linear];
  if (options_.order == Order::kShuffled) from = Random() % count;
  if (options_.order == Order::kWarpByWarp) {
    const size_t begin = size_t{thread_->warp} * kWarpSize;
    const size_t end = std::min(begin + kWarpSize, count);
    for (size_t i = begin; i < end; ++i) {
      if (threads_[i].CanRun()) return &threads_[i];
    }
  }
  for (size_t i = 1; i <= count; ++i) {
    size_t place = from + i;
    if (place >= count) place -= count;
    Thread& thread = threads_[order_[place]];
    if (thread.CanRun()) return &thread;
  }
  return nullptr;
}

void Block::Yield() {
  Thread* const me = thread_;
  if (delivery() == Delivery::kRandom) DeliverRandomly();
  Thread* next = NextThread();
  while (next == nullptr && DeliverLate()) next = NextThread();
  if (next == nullptr && left_ > 0) FailDeadlock();
  if (next == nullptr) {
    Switch(nullptr, &launcher_);
    return;
  }
  next->wait = nullptr;
  if (next == me) return;
  thread_ = next;
  Switch(me->done ? nullptr : &me->point, &next->point);
}

void Block::WaitFor(const Wait& wait) {
  while (*wait.counter == wait.value) {
    thread_->wait = &wait;
    Yield();
  }
}

uint64_t Block::Random() {  // xorshift64*
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  return (random_ * 0x2545F4914F6CDD1D) >> 16;
}

Delivery Block::delivery() const {
  if (options_.delivery != Delivery::kByOrder) return options_.delivery;
  switch (options_.order) {
    case Order::kForward:
      return Delivery::kLate;
    case Order::kReverse:
    case Order::kWarpByWarp:
      return Delivery::kImmediate;
    case Order::kShuffled:
      break;
  }
  return Delivery::kRandom;
}

}  // namespace headcount::simt
