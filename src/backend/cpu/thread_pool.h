// Threads that stay alive between operations. A step is hundreds of short
// parallel loops, so workers spin for some microseconds before they sleep.
//
//   ThreadPool pool(2);
//   pool.Run(panels, [&](int64_t panel, int worker) { ... });
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/mutex.h"

namespace headcount {

// Cores that this process may use: its affinity mask, or less where a control
// group grants less time.
int AvailableCores();

// Thread-safe; tasks do not call Run.
class ThreadPool {
 public:
  using Task = absl::FunctionRef<void(int64_t task, int worker)>;

  // `threads` counts the calling thread; at least 1.
  explicit ThreadPool(int threads);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(i, worker) once for each i in [0, tasks), rising, each taken by
  // the next free thread; worker is in [0, threads()). Returns when all are
  // done. The caller works too, and alone, as worker 0, while another thread is
  // in Run: a model that is loaded does not hold up steps.
  void Run(int64_t tasks, Task task);

 private:
  void Loop(int worker);
  bool WaitForWork();
  void TakeTasks(int worker);

  std::atomic<bool> busy_{false};  // a thread is in Run

  // The job: valid while `unfinished_` is not 0. A thread reads it only after
  // it has claimed a task, which keeps the job from ending.
  std::atomic<const Task*> task_{nullptr};
  std::atomic<int64_t> num_tasks_{0};

  // On their own cache lines: every claim writes one, every end the other.
  alignas(64) std::atomic<int64_t> unclaimed_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};

  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  CondVar wake_;  // unclaimed_ > 0 or stopping_
  std::vector<std::thread> workers_;
};

}  // namespace headcount
