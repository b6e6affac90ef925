// Fibers: stacks that one thread of the machine runs in turn.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(HEADCOUNT_SIMT_UCONTEXT)
#define HEADCOUNT_SIMT_USES_UCONTEXT
#include <ucontext.h>
#endif

namespace headcount::simt {

// Where a stack was left, so that it can be gone on with.
struct Point {
#if defined(HEADCOUNT_SIMT_USES_UCONTEXT)
  ucontext_t registers;
#else
  void* stack_pointer = nullptr;  // the registers are on the stack
#endif
  // The stack it is on; null for that of the thread of the machine.
  char* stack = nullptr;
};

// Stacks of the same size for `count` fibers, each with a page before it that
// must not be touched.
class Stacks {
 public:
  static constexpr size_t kBytes = 256 << 10;

  Stacks() = default;
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  ~Stacks();

  void Resize(size_t count);
  char* stack(size_t index) const;

 private:
  char* memory_ = nullptr;
  size_t count_ = 0;
};

// Makes `point` the start of `entry`, which must not return, on `stack`.
// `index`: fibers with unlike indices use unlike lines of the caches.
void Prepare(Point* point, char* stack, size_t index, void (*entry)());

// First in each `entry`.
void Entered();

// Leaves the caller at `from` and goes on at `to`. With no `from` the caller
// never goes on.
void Switch(Point* from, const Point* to);

}  // namespace headcount::simt
