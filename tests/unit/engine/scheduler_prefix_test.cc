// What the scheduler finds in the prefix cache, and what it keeps out of it.
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "engine/scheduler.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

constexpr int32_t kSlabs = 16;

class SchedulerPrefixTest : public ::testing::Test {
 protected:
  SchedulerPrefixTest() { AddModel(0); }

  int AddModel(int32_t window) {
    return scheduler_
        .AddModel(
            {.groups = {{.block_bytes = 1024, .retention = {.window = window}}},
             .max_context = 1000,
             .max_logits_rows = 64})
        .value();
  }

  static Request Ask(int32_t tokens, int32_t max_tokens = 1) {
    Request request;
    request.prompt.resize(static_cast<size_t>(tokens));
    std::iota(request.prompt.begin(), request.prompt.end(), 0);
    request.sampling.max_tokens = max_tokens;
    return request;
  }

  // What the part comes to when token 7 is drawn each time.
  static StepResult Result(const StepPart& part) {
    const Sequence& sequence = *part.sequence;
    if (sequence.computed + part.num_tokens < sequence.length()) return {};
    if (sequence.continuations.empty()) {
      StepResult drawn{.token = 7};
      if (sequence.length() + 1 == sequence.max_length) {
        drawn.end = EndCause::kLength;
      }
      return drawn;
    }
    const size_t next = sequence.LongContinuation(sequence.continuation + 1);
    if (next < sequence.continuations.size()) return {.continuation = next};
    return {.end = EndCause::kLength};
  }

  // Runs the request alone to its end, drawing token 7 each time; returns how
  // many tokens were not computed. `end`: of the first step.
  int32_t Run(Request request, std::optional<EndCause> end = {}) {
    StepEvents events;
    events.submitted.push_back({++last_id_, std::move(request)});
    int32_t cached = 0;
    do {
      const StepPlan plan =
          scheduler_.Step(absl::UnixEpoch(), std::exchange(events, {}));
      scheduler_.CheckInvariants();
      EXPECT_EQ(plan.parts.size(), 1u);
      const Sequence& sequence = *plan.parts[0].sequence;
      cached = sequence.cached_tokens;
      const StepResult result =
          end ? StepResult{.end = end} : Result(plan.parts[0]);
      scheduler_.Commit(plan, {result}, absl::Milliseconds(1));
      scheduler_.CheckInvariants();
    } while (!scheduler_.idle());
    return cached;
  }

  BlockPool pool_{{.capacity_bytes = kSlabs * 1024, .slab_bytes = 1024}};
  Scheduler scheduler_{{.step_tokens = 64, .watermark = 0}, &pool_};
  RequestId last_id_ = 0;
};

TEST_F(SchedulerPrefixTest, FindsWholeBlocksButTheLastToken) {
  EXPECT_EQ(Run(Ask(100)), 0);
  EXPECT_EQ(Run(Ask(100)), 96);
  EXPECT_EQ(Run(Ask(96)), 80) << "the last token's logits are needed";
  EXPECT_EQ(Run(Ask(97)), 96);
  EXPECT_EQ(Run(Ask(15)), 0);
  Request other = Ask(100);
  other.prompt[40] = -1;
  EXPECT_EQ(Run(other), 32);
  const SchedulerStats::PerModel stats = scheduler_.Stats().models[0];
  EXPECT_EQ(stats.prefix_tokens, 100u + 100 + 96 + 97 + 15 + 100);
  EXPECT_EQ(stats.prefix_hit_tokens, 96u + 80 + 96 + 32);
}

TEST_F(SchedulerPrefixTest, TokensThatTwoShareCountOnce) {
  Run(Ask(48));
  StepEvents events;
  for (int i = 0; i < 2; ++i) {
    events.submitted.push_back({++last_id_, Ask(48, 4)});
  }
  while (!scheduler_.idle()) {
    const StepPlan plan =
        scheduler_.Step(absl::UnixEpoch(), std::exchange(events, {}));
    std::vector<StepResult> results;
    for (const StepPart& part : plan.parts) results.push_back(Result(part));
    scheduler_.Commit(plan, results, absl::Milliseconds(1));
    const SchedulerStats::PerModel stats = scheduler_.Stats().models[0];
    if (stats.running < 2) continue;
    // 32 of both, and what each has computed itself.
    const int64_t own = plan.parts.back().sequence->computed - 32;
    EXPECT_EQ(stats.kv_tokens, 32 + 2 * own);
    EXPECT_LE(stats.kv_tokens * 1024 / kBlockTokens, stats.pool.used);
  }
  EXPECT_EQ(scheduler_.Stats().models[0].kv_tokens, 0);
}

TEST_F(SchedulerPrefixTest, FindsWhatWasGenerated) {
  Run(Ask(16, 40));
  Request next = Ask(16);
  next.prompt.resize(56, 7);
  EXPECT_EQ(Run(next), 48) << "the last one was drawn but not computed";
}

TEST_F(SchedulerPrefixTest, TenantsAndSaltsAreApart) {
  Request request = Ask(64);
  const auto as = [&](const std::string& tenant, const std::string& salt) {
    request.tenant = tenant;
    request.cache_salt = salt;
    return Run(request);
  };
  EXPECT_EQ(as("", ""), 0);
  EXPECT_EQ(as("a", ""), 0);
  EXPECT_EQ(as("", "a"), 0);
  EXPECT_EQ(as("a", "b"), 0);
  EXPECT_EQ(as("ab", ""), 0);
  EXPECT_EQ(as("a", "b"), 48);
  EXPECT_EQ(as("ab", ""), 48);
}

TEST_F(SchedulerPrefixTest, ModelsAreApart) {
  Request request = Ask(64);
  Run(request);
  request.model = AddModel(0);
  EXPECT_EQ(Run(request), 0);
}

TEST_F(SchedulerPrefixTest, GatesAndWindowsGoWithout) {
  Run(Ask(64));
  Request gated = Ask(64);
  gated.head_gates = {0.5f};
  EXPECT_EQ(Run(gated), 0);
  const int64_t cached = pool_.bytes().cached;
  Request windowed = Ask(64);
  windowed.model = AddModel(20);
  EXPECT_EQ(Run(windowed), 0);
  EXPECT_EQ(Run(windowed), 0);
  EXPECT_EQ(pool_.bytes().cached, cached) << "they leave nothing behind";
}

// What one group had cached lay where the other had to go: it hung, for ever.
TEST_F(SchedulerPrefixTest, ModelsWithTwoGroupsGoWithout) {
  Request request = Ask(64);
  request.model =
      scheduler_
          .AddModel({.groups = {{.block_bytes = 512}, {.block_bytes = 1024}},
                     .max_context = 1000,
                     .max_logits_rows = 64})
          .value();
  EXPECT_EQ(Run(request), 0);
  EXPECT_EQ(Run(request), 0);
  EXPECT_EQ(pool_.bytes().cached, 0);
}

TEST_F(SchedulerPrefixTest, AStepThatFailedLeavesNothing) {
  EXPECT_EQ(Run(Ask(64), EndCause::kError), 0);
  EXPECT_EQ(pool_.bytes().cached, 0);
  EXPECT_EQ(Run(Ask(64)), 0);
}

TEST_F(SchedulerPrefixTest, ScoredContinuationsStayOut) {
  Request scored = Ask(40, 0);
  scored.continuations = {std::vector<int32_t>(30, 3),
                          std::vector<int32_t>(30, 4)};
  EXPECT_EQ(Run(scored), 0);
  EXPECT_EQ(pool_.bytes().cached, 2 * 1024) << "of the prompt only";
  EXPECT_EQ(Run(scored), 32);
  Request follows = Ask(40);
  follows.prompt.resize(80, 4);
  EXPECT_EQ(Run(follows), 32);
}

// What another request had of the prompt and of the continuation as well came
// back as the sequence's own, for the next continuation to overwrite.
TEST_F(SchedulerPrefixTest, APreemptedContinuationFindsItsPromptOnly) {
  Request older = Ask(40, 100);
  older.prompt.resize(63, 7);  // and 7 is what it goes on to draw
  Request scored = Ask(40, 0);
  scored.continuations = {std::vector<int32_t>(152, 7),
                          std::vector<int32_t>(152, 8)};
  StepEvents events;
  events.submitted.push_back({1, std::move(older)});
  events.submitted.push_back({2, std::move(scored)});
  bool preempted = false;
  do {
    const StepPlan plan =
        scheduler_.Step(absl::UnixEpoch(), std::exchange(events, {}));
    scheduler_.CheckInvariants();
    std::vector<StepResult> results;
    for (const StepPart& part : plan.parts) {
      const Sequence& sequence = *part.sequence;
      if (sequence.preemptions == 1 && !std::exchange(preempted, true)) {
        EXPECT_EQ(sequence.id, 2u);
        EXPECT_EQ(sequence.next_logits, 64) << "it was in its continuation";
        EXPECT_EQ(sequence.computed, 32);
      }
      results.push_back(Result(part));
    }
    scheduler_.Commit(plan, results, absl::Milliseconds(1));
    scheduler_.CheckInvariants();
  } while (!scheduler_.idle());
  EXPECT_TRUE(preempted);
}

TEST_F(SchedulerPrefixTest, GivesWayWhenThePoolIsFull) {
  for (int32_t i = 0; i < 8; ++i) {
    Request request = Ask(6 * 16);
    request.cache_salt = std::to_string(i);
    Run(request);
  }
  EXPECT_EQ(pool_.bytes().used, 0);
  EXPECT_EQ(pool_.bytes().free + pool_.bytes().cached, kSlabs * 1024);
  EXPECT_GT(scheduler_.Stats().evictions, 0u);
  Request last = Ask(6 * 16 + 1);
  last.cache_salt = "7";
  EXPECT_EQ(Run(last), 96) << "the least recently used went first";
}

TEST(SchedulerWithoutPrefixCache, KeepsNothing) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  Scheduler scheduler(
      {.step_tokens = 64, .watermark = 0, .prefix_cache = false}, &pool);
  ASSERT_TRUE(scheduler
                  .AddModel({.groups = {{.block_bytes = 1024}},
                             .max_context = 100,
                             .max_logits_rows = 8})
                  .ok());
  Request request;
  request.prompt.resize(40);
  request.sampling.max_tokens = 1;
  StepEvents events;
  events.submitted.push_back({1, request});
  const StepPlan plan = scheduler.Step(absl::UnixEpoch(), std::move(events));
  scheduler.Commit(plan, {{.token = 1, .end = EndCause::kLength}},
                   absl::Milliseconds(1));
  EXPECT_EQ(pool.bytes().free, 4096);
}

}  // namespace
}  // namespace headcount
