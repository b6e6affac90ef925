#include "backend/cpu/thread_pool.h"

#include <atomic>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace headcount {
namespace {

TEST(ThreadPoolTest, RunsEveryTaskOnceForAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<int> calls(static_cast<size_t>(tasks), 0);
      pool.Run(tasks, [&](int64_t task, int worker) {
        EXPECT_GE(worker, 0);
        EXPECT_LT(worker, threads);
        ++calls[static_cast<size_t>(task)];
      });
      for (const int count : calls) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ThreadPoolTest, WhatTasksWroteIsVisibleAfterRun) {
  ThreadPool pool(4);
  std::vector<int64_t> values(64, 0);
  for (int64_t round = 1; round <= 3000; ++round) {
    pool.Run(64, [&](int64_t task, int /*worker*/) {
      values[static_cast<size_t>(task)] += task;
    });
  }
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(values[i], static_cast<int64_t>(i) * 3000);
  }
}

// Only one thread at a time has a worker's number, so plain memory by number is
// safe.
TEST(ThreadPoolTest, WorkersAreNumberedWithoutOverlap) {
  ThreadPool pool(4);
  std::vector<int64_t> by_worker(4, 0);
  for (int round = 0; round < 200; ++round) {
    pool.Run(100, [&](int64_t /*task*/, int worker) {
      ++by_worker[static_cast<size_t>(worker)];
    });
  }
  EXPECT_EQ(std::accumulate(by_worker.begin(), by_worker.end(), int64_t{0}),
            200 * 100);
}

// A task of another thread keeps this one waiting long enough that workers fall
// asleep and are woken again.
TEST(ThreadPoolTest, SleepingWorkersWakeForTheNextJob) {
  ThreadPool pool(3);
  std::atomic<int> done{0};
  for (int round = 0; round < 20; ++round) {
    std::atomic<int64_t> spins{0};
    while (spins.fetch_add(1) < 400000) {
    }
    pool.Run(3, [&](int64_t /*task*/, int /*worker*/) { ++done; });
  }
  EXPECT_EQ(done.load(), 60);
}

TEST(ThreadPoolTest, AtLeastOneCoreIsAvailable) {
  EXPECT_GE(AvailableCores(), 1);
}

}  // namespace
}  // namespace headcount
