#include "backend/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "base/check.h"

namespace headcount {
namespace {

// About 50 microseconds where a pause takes 140 cycles: longer than the gaps
// between the operations of a step, shorter than those between steps.
constexpr int kSpins = 1000;

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Cores' worth of time that the control group (v2) grants, or `otherwise`.
int ControlGroupCores(int otherwise) {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) {
    return otherwise;
  }
  const double cores = std::strtod(quota.c_str(), nullptr) / period;
  return cores >= otherwise ? otherwise : std::max(1, static_cast<int>(cores));
}

}  // namespace

int AvailableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
  return ControlGroupCores(std::max(1, cores));
}

ThreadPool::ThreadPool(int threads) {
  CHECK(threads >= 1) << threads << " threads";
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker] { Loop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(&mutex_);
    stopping_.store(true);
    wake_.NotifyAll();
  }
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int64_t tasks, Task task) {
  if (tasks <= 1 || workers_.empty() ||
      busy_.exchange(true, std::memory_order_acquire)) {
    for (int64_t i = 0; i < tasks; ++i) task(i, 0);
    return;
  }
  task_.store(&task, std::memory_order_relaxed);
  num_tasks_.store(tasks, std::memory_order_relaxed);
  unfinished_.store(tasks, std::memory_order_relaxed);
  // Publishes the job. Sequentially consistent, as is the sleeper's increment:
  // either it sees the job or this thread sees the sleeper.
  unclaimed_.store(tasks);
  if (sleeping_.load() > 0) {
    MutexLock lock(&mutex_);
    wake_.NotifyAll();
  }
  TakeTasks(/*worker=*/0);
  for (int spins = 0; unfinished_.load(std::memory_order_acquire) > 0;
       ++spins) {
    if (spins < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
  busy_.store(false, std::memory_order_release);
}

void ThreadPool::Loop(int worker) {
  while (WaitForWork()) TakeTasks(worker);
}

bool ThreadPool::WaitForWork() {
  for (int spins = 0; spins < kSpins; ++spins) {
    if (unclaimed_.load(std::memory_order_relaxed) > 0) return true;
    if (stopping_.load(std::memory_order_relaxed)) return false;
    Pause();
  }
  MutexLock lock(&mutex_);
  sleeping_.fetch_add(1);
  while (unclaimed_.load() <= 0 && !stopping_.load()) wake_.Wait(&mutex_);
  sleeping_.fetch_sub(1);
  return !stopping_.load();
}

void ThreadPool::TakeTasks(int worker) {
  int64_t left = unclaimed_.load(std::memory_order_relaxed);
  while (left > 0) {
    if (!unclaimed_.compare_exchange_weak(left, left - 1,
                                          std::memory_order_acquire,
                                          std::memory_order_relaxed)) {
      continue;
    }
    const Task& task = *task_.load(std::memory_order_relaxed);
    task(num_tasks_.load(std::memory_order_relaxed) - left, worker);
    unfinished_.fetch_sub(1, std::memory_order_release);
    left = unclaimed_.load(std::memory_order_relaxed);
  }
}

}  // namespace headcount
