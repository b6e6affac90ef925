#include "tests/simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/simt/asan.h"

#if !defined(HEADCOUNT_SIMT_USES_UCONTEXT)
// Saves the registers that a call must preserve, and changes the stack. Ten
// times as fast as swapcontext, which asks the kernel for the signal mask.
extern "C" void headcount_simt_switch(void** save, void* load);
asm(R"(
.text
.globl headcount_simt_switch
.type headcount_simt_switch, @function
headcount_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size headcount_simt_switch, .-headcount_simt_switch
)");
#endif

namespace headcount::simt {
namespace {

// A page, so that the distance of two stacks is an odd number of pages: else
// they would share a few sets of the TLB.
size_t GuardBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
size_t Stride() { return GuardBytes() + Stacks::kBytes; }

#if defined(HEADCOUNT_SIMT_ASAN)
// Bounds of the stack that is no fiber's: the sanitizer says them to whoever
// comes from it, and wants to hear them from whoever goes back.
const void* machine_stack = nullptr;
size_t machine_stack_bytes = 0;
bool left_machine_stack = false;

void FinishSwitch(void* fake_stack) {
  const void* left = nullptr;
  size_t left_bytes = 0;
  __sanitizer_finish_switch_fiber(fake_stack, &left, &left_bytes);
  if (!left_machine_stack) return;
  machine_stack = left;
  machine_stack_bytes = left_bytes;
}
#endif

}  // namespace

Stacks::~Stacks() { Resize(0); }

void Stacks::Resize(size_t count) {
  if (count <= count_ && count > 0) return;
  if (memory_ != nullptr) munmap(memory_, count_ * Stride());
  memory_ = nullptr;
  count_ = count;
  if (count == 0) return;
  // Inaccessible, then all but the guards: pages are there once touched.
  void* memory = mmap(nullptr, count * Stride(), PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("simt: no memory for stacks");
    std::abort();
  }
  memory_ = static_cast<char*>(memory);
  for (size_t i = 0; i < count; ++i) {
    if (mprotect(stack(i), kBytes, PROT_READ | PROT_WRITE) != 0) {
      std::perror("simt: no memory for stacks");
      std::abort();
    }
  }
}

char* Stacks::stack(size_t index) const {
  return memory_ + index * Stride() + GuardBytes();
}

void Prepare(Point* point, char* stack, size_t index, void (*entry)()) {
  point->stack = stack;
  // Else all stacks would lie in the same few sets of the first cache.
  const size_t bytes = Stacks::kBytes - index % 64 * 192;
#if defined(HEADCOUNT_SIMT_USES_UCONTEXT)
  getcontext(&point->registers);
  point->registers.uc_stack.ss_sp = stack;
  point->registers.uc_stack.ss_size = bytes;
  point->registers.uc_link = nullptr;
  makecontext(&point->registers, entry, 0);
#else
  constexpr int kSavedRegisters = 6;
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // where a return address of `entry` would be
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  point->stack_pointer = top;
#endif
}

void Entered() {
#if defined(HEADCOUNT_SIMT_ASAN)
  FinishSwitch(nullptr);
#endif
}

void Switch(Point* from, const Point* to) {
  // Not on the stack, which the sanitizer may take away before it is written.
  static Point never_again;
  const bool dies = from == nullptr;
  if (dies) from = &never_again;
#if defined(HEADCOUNT_SIMT_ASAN)
  // Its frames will never be left: what they guard is free again.
  if (dies) __asan_handle_no_return();
  left_machine_stack = !dies && from->stack == nullptr;
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(
      dies ? nullptr : &fake_stack,
      to->stack == nullptr ? machine_stack : to->stack,
      to->stack == nullptr ? machine_stack_bytes : Stacks::kBytes);
#endif
#if defined(HEADCOUNT_SIMT_USES_UCONTEXT)
  swapcontext(&from->registers, &to->registers);
#else
  headcount_simt_switch(&from->stack_pointer, to->stack_pointer);
#endif
#if defined(HEADCOUNT_SIMT_ASAN)
  FinishSwitch(fake_stack);
#endif
}

}  // namespace headcount::simt
