// The order of events that gRPC and Abseil promise, told to ThreadSanitizer.
//
// Debian's libraries are not instrumented, so that it sees what our code does
// in their callbacks, but not what came before what. Each test of the tsan
// preset has this file: its functions have the names of some of the libraries',
// are found before them, also by the libraries themselves, and call them. The
// promises:
//
// - What was done before an absl::Mutex was unlocked happened before what is
//   done by who locks it next. gRPC has no readers' locks. (Locks of our own
//   code are seen anyway.)
// - What was done before an operation of gRPC was started happened before what
//   is done when it ended. Operations are known by their tags: a batch of one
//   call, such as a write, or the request for the next call.
// - OnCancel of a reactor comes after the handler that made it has returned,
//   and OnDone after all its other callbacks. gRPC counts what is still to
//   come; what it counts in its headers is seen.
// - The last reference to an absl::Status is dropped after all others.
//
// Nothing else is said of two operations or callbacks: they may race.
#include <dlfcn.h>
#include <grpc/grpc.h>
#include <grpcpp/support/server_callback.h>
#include <sanitizer/tsan_interface.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace {

// The library's function. A member function takes its object first.
template <typename Function>
Function* Real(const char* mangled_name) {
  void* const found = dlsym(RTLD_NEXT, mangled_name);
  if (found == nullptr) {
    std::fprintf(stderr, "%s: no library has it\n", mangled_name);
    std::abort();
  }
  return reinterpret_cast<Function*>(found);
}

// Stands for a reactor whose OnCancel gRPC calls, once.
class Cancellation final : public grpc::internal::ServerReactor {
 public:
  Cancellation(ServerReactor* reactor, void* count)
      : reactor_(reactor), count_(count) {}

  void OnCancel() override {
    reactor_->OnCancel();
    __tsan_release(count_);
    delete this;
  }
  void OnDone() override {}

 private:
  ServerReactor* const reactor_;
  void* const count_;
};

}  // namespace

void absl::Mutex::Lock() {
  static auto* const real = Real<void(Mutex*)>("_ZN4absl7debian35Mutex4LockEv");
  real(this);
  __tsan_acquire(this);
}

bool absl::Mutex::TryLock() {
  static auto* const real =
      Real<bool(Mutex*)>("_ZN4absl7debian35Mutex7TryLockEv");
  const bool locked = real(this);
  if (locked) __tsan_acquire(this);
  return locked;
}

void absl::Mutex::Unlock() {
  static auto* const real =
      Real<void(Mutex*)>("_ZN4absl7debian35Mutex6UnlockEv");
  __tsan_release(this);
  real(this);
}

void absl::CondVar::Wait(Mutex* mutex) {
  static auto* const real = Real<void(CondVar*, Mutex*)>(
      "_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  real(this, mutex);
  __tsan_acquire(mutex);
}

bool absl::CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static auto* const real = Real<bool(CondVar*, Mutex*, Duration)>(
      "_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  __tsan_release(mutex);
  const bool timed_out = real(this, mutex, timeout);
  __tsan_acquire(mutex);
  return timed_out;
}

bool absl::CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static auto* const real = Real<bool(CondVar*, Mutex*, Time)>(
      "_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  __tsan_release(mutex);
  const bool timed_out = real(this, mutex, deadline);
  __tsan_acquire(mutex);
  return timed_out;
}

// The count itself is not seen: one reference is dropped at a time, so that
// what an earlier one saw is before the memory is freed. The lock is relaxed,
// which says nothing of two Statuses.
void absl::Status::UnrefNonInlined(uintptr_t rep) {
  static auto* const real =
      Real<void(uintptr_t)>("_ZN4absl7debian36Status15UnrefNonInlinedEm");
  static std::atomic<bool> locked = false;
  while (locked.exchange(true, std::memory_order_relaxed)) {
  }
  void* const counted = reinterpret_cast<void*>(rep);
  __tsan_acquire(counted);
  __tsan_release(counted);
  real(rep);
  locked.store(false, std::memory_order_relaxed);
}

// Of gRPC's src/core/lib/surface/completion_queue.h, which is not installed.
struct grpc_cq_completion;

bool grpc_cq_begin_op(grpc_completion_queue* queue, void* tag) {
  static auto* const real = Real<bool(grpc_completion_queue*, void*)>(
      "_Z16grpc_cq_begin_opP21grpc_completion_queuePv");
  __tsan_release(tag);
  return real(queue, tag);
}

// Callbacks run on this thread, or on one that a lock hands them to.
void grpc_cq_end_op(grpc_completion_queue* queue, void* tag, absl::Status error,
                    void (*done)(void*, grpc_cq_completion*), void* done_arg,
                    grpc_cq_completion* storage, bool internal) {
  static auto* const real = Real<void(
      grpc_completion_queue*, void*, absl::Status,
      void (*)(void*, grpc_cq_completion*), void*, grpc_cq_completion*, bool)>(
      "_Z14grpc_cq_end_opP21grpc_completion_queuePvN4absl7debian36StatusEPF"
      "vS1_P18grpc_cq_completionES1_S6_b");
  __tsan_acquire(tag);
  __tsan_release(tag);  // for who takes the tag out of the queue
  real(queue, tag, std::move(error), done, done_arg, storage, internal);
}

extern "C" grpc_event grpc_completion_queue_next(grpc_completion_queue* queue,
                                                 gpr_timespec deadline,
                                                 void* reserved) {
  static auto* const real =
      Real<decltype(grpc_completion_queue_next)>("grpc_completion_queue_next");
  const grpc_event event = real(queue, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(event.tag);
  return event;
}

extern "C" grpc_event grpc_completion_queue_pluck(grpc_completion_queue* queue,
                                                  void* tag,
                                                  gpr_timespec deadline,
                                                  void* reserved) {
  static auto* const real = Real<decltype(grpc_completion_queue_pluck)>(
      "grpc_completion_queue_pluck");
  const grpc_event event = real(queue, tag, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(tag);
  return event;
}

void grpc::internal::ServerCallbackCall::CallOnCancel(ServerReactor* reactor) {
  static auto* const real = Real<void(ServerCallbackCall*, ServerReactor*)>(
      "_ZN4grpc8internal18ServerCallbackCall12CallOnCancelEPNS0_"
      "13ServerReactorE");
  __tsan_acquire(&on_cancel_conditions_remaining_);
  if (!reactor->InternalInlineable()) {
    reactor = new Cancellation(reactor, &callbacks_outstanding_);
  }
  real(this, reactor);
}

void grpc::internal::ServerCallbackCall::ScheduleOnDone(bool inline_ondone) {
  static auto* const real = Real<void(ServerCallbackCall*, bool)>(
      "_ZN4grpc8internal18ServerCallbackCall14ScheduleOnDoneEb");
  __tsan_acquire(&callbacks_outstanding_);
  real(this, inline_ondone);
}
