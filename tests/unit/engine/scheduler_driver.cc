#include "tests/unit/engine/scheduler_driver.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "gtest/gtest.h"
#include "heads/kv_geometry.h"

namespace headcount {

DriverOptions PoolOf(int64_t blocks) {
  return {.slabs = blocks, .slab_bytes = 1024};
}

Request RequestOf(int32_t prompt_tokens, int32_t max_tokens) {
  Request request;
  request.prompt.resize(static_cast<size_t>(prompt_tokens));
  request.sampling.max_tokens = max_tokens;
  return request;
}

Request ScoreOf(int32_t prompt_tokens, const std::vector<int>& continuations) {
  Request request = RequestOf(prompt_tokens, 0);
  for (const int tokens : continuations) {
    request.continuations.emplace_back(static_cast<size_t>(tokens));
  }
  return request;
}

SchedulerModel Made(const DriverModel& model) {
  SchedulerModel made{.groups = {},
                      .quota = model.quota,
                      .max_context = model.max_context,
                      .max_concurrent = model.max_concurrent,
                      .max_logits_rows = model.max_logits_rows,
                      .base = model.base,
                      .share = model.share};
  for (size_t i = 0; i < model.block_bytes.size(); ++i) {
    SchedulerGroup& group = made.groups.emplace_back();
    group.block_bytes = model.block_bytes[i];
    if (!model.windows.empty()) group.retention.window = model.windows[i];
  }
  return made;
}

SchedulerDriver::SchedulerDriver(const DriverOptions& options)
    : options_(options),
      pool_({.capacity_bytes = options.slabs * options.slab_bytes,
             .slab_bytes = options.slab_bytes}) {
  scheduler_.emplace(options.scheduler, &pool_);
  for (const DriverModel& model : options.models) {
    EXPECT_TRUE(scheduler_->AddModel(Made(model)).ok());
  }
}

RequestId SchedulerDriver::Submit(Request request) {
  const absl::Status fits = CheckFits(request);
  CHECK(fits.ok()) << fits;
  const RequestId id = next_id_++;
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    request.prompt[i] = Token(id, static_cast<int32_t>(i));
  }
  for (size_t k = 0; k < request.continuations.size(); ++k) {
    for (size_t i = 0; i < request.continuations[k].size(); ++i) {
      request.continuations[k][i] = ContinuationToken(id, k, i);
    }
  }
  Shadow& shadow = requests_[id];
  shadow.request = request;
  shadow.continuation = static_cast<size_t>(-1);
  shadow.NextContinuation();
  events_.submitted.push_back({id, std::move(request)});
  return id;
}

absl::Status SchedulerDriver::CheckFits(const Request& request) const {
  return headcount::CheckFits(scheduler_->limits(request.model), request);
}

RequestId SchedulerDriver::Submit(int32_t prompt_tokens, int32_t max_tokens,
                                  int model) {
  Request request = RequestOf(prompt_tokens, max_tokens);
  request.model = model;
  return Submit(std::move(request));
}

void SchedulerDriver::Cancel(RequestId id) {
  events_.ends.push_back({id, EndCause::kCancelled});
}

StepPlan SchedulerDriver::Step() {
  StepPlan plan = scheduler_->Step(now, std::exchange(events_, {}));
  for (const EndedRequest& ended : plan.ended) End(ended.id, ended.cause);
  CheckPreemptions();
  CheckPlan(plan);
  scheduler_->CheckInvariants();
  std::vector<StepResult> results;
  for (const StepPart& part : plan.parts) results.push_back(Compute(part));
  std::vector<RequestId> ids;
  std::vector<bool> lost;  // some of what the prompt's end attends to
  for (const StepPart& part : plan.parts) {
    ids.push_back(part.sequence->id);
    lost.push_back(LostPromptEnd(*part.sequence));
  }
  scheduler_->Commit(plan, results, step_time);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (results[i].end) End(ids[i], *results[i].end);
    if (lost[i] && results[i].continuation) {
      requests_.at(ids[i]).computed = 0;
      running_.erase(ids[i]);
    }
  }
  scheduler_->CheckInvariants();
  return plan;
}

void SchedulerDriver::RunDry() {
  Step();
  for (int steps = 0; !scheduler_->idle(); ++steps) {
    ASSERT_LT(steps, 100000) << "hangs";
    Step();
  }
  EXPECT_EQ(pool_.bytes().used, 0);
  for (const auto& [id, shadow] : requests_) {
    EXPECT_TRUE(shadow.ended.has_value()) << id;
  }
}

int32_t SchedulerDriver::Token(RequestId id, int32_t index) {
  return static_cast<int32_t>(
      (id * 7919 + static_cast<uint64_t>(index) * 104729) % 50000);
}

int32_t SchedulerDriver::ContinuationToken(RequestId id, size_t continuation,
                                           size_t index) {
  return Token(id, static_cast<int32_t>(1000 * (continuation + 1) + index));
}

bool SchedulerDriver::Live(RequestId id) const {
  return !requests_.at(id).ended.has_value();
}

std::optional<EndCause> SchedulerDriver::Ended(RequestId id) const {
  return requests_.at(id).ended;
}

int32_t SchedulerDriver::Preemptions(RequestId id) const {
  return requests_.at(id).preemptions;
}

const std::vector<int32_t>& SchedulerDriver::UsedLogits(RequestId id) const {
  return requests_.at(id).used_logits;
}

void SchedulerDriver::StopAfter(RequestId id, int32_t tokens) {
  requests_.at(id).stop_after = tokens;
}

// Moves on to the next continuation that has tokens to compute, if any.
bool SchedulerDriver::Shadow::NextContinuation() {
  do {
    ++continuation;
  } while (continuation < request.continuations.size() &&
           request.continuations[continuation].size() == 1);
  return continuation < request.continuations.size();
}

// The newest running sequences go first, never the oldest, and none of those
// that have been preempted three times or have no blocks.
void SchedulerDriver::CheckPreemptions() {
  if (running_.empty()) return;
  const RequestId oldest = running_.begin()->first;
  std::vector<RequestId> preempted;
  std::vector<RequestId> gathered;  // begin anew, and are not preempted
  RequestId newest_kept = 0;
  for (const auto& [id, sequence] : running_) {
    Shadow& shadow = requests_.at(id);
    if (sequence->preemptions == shadow.preemptions) {
      if (sequence->reserves && sequence->computed < shadow.computed) {
        gathered.push_back(id);
        shadow.computed = 0;
      }
      const bool may_go = !sequence->reserves && !sequence->tables.empty();
      if (may_go) newest_kept = id;
      continue;
    }
    EXPECT_EQ(sequence->preemptions, shadow.preemptions + 1) << id;
    EXPECT_FALSE(sequence->tables.empty()) << id << " had no blocks to give";
    shadow.preemptions = sequence->preemptions;
    shadow.computed = 0;
    preempted.push_back(id);
  }
  for (const RequestId id : preempted) {
    EXPECT_NE(id, oldest) << "the oldest was preempted";
    if (options_.check_preemption_order) {
      EXPECT_GT(id, newest_kept) << "an older one was preempted";
    }
    running_.erase(id);
  }
  for (const RequestId id : gathered) running_.erase(id);
}

void SchedulerDriver::CheckPlan(const StepPlan& plan) {
  EXPECT_EQ(scheduler_->idle(), plan.parts.empty()) << "no progress";
  int32_t tokens = 0;
  int32_t rows = 0;
  std::map<RequestId, const Sequence*> planned;
  for (const StepPart& part : plan.parts) {
    const Sequence& sequence = *part.sequence;
    const int base = options_.models[static_cast<size_t>(sequence.model)].base;
    EXPECT_EQ(base < 0 ? sequence.model : base, plan.model);
    EXPECT_GT(part.num_tokens, 0);
    EXPECT_TRUE(sequence.HasRoomFor(sequence.computed + part.num_tokens));
    EXPECT_TRUE(planned.emplace(sequence.id, &sequence).second);
    if (running_.count(sequence.id) == 0) {
      // The prefix cache may have had some of it.
      EXPECT_EQ(sequence.computed % kBlockTokens, 0);
      requests_.at(sequence.id).computed = sequence.computed;
    }
    tokens += part.num_tokens;
    rows += part.logits_rows;
  }
  EXPECT_LE(tokens, options_.scheduler.step_tokens);
  EXPECT_EQ(tokens, plan.prefill_tokens + plan.decode_tokens);
  if (!plan.parts.empty()) {
    const auto model = static_cast<size_t>(plan.model);
    EXPECT_LE(rows, options_.models[model].max_logits_rows);
  }
  // Whoever decodes and has a block for its next token gets it.
  for (const auto& [id, sequence] : running_) {
    if (sequence->model != plan.model || plan.parts.empty()) continue;
    if (!sequence->decoding() || !sequence->HasRoomFor(sequence->length())) {
      continue;
    }
    EXPECT_EQ(planned.count(id), 1u) << id << " is starved";
  }
  running_.insert(planned.begin(), planned.end());
}

// Whether the window of the last token computed has left a block behind that
// the first one after the prompt attends to.
bool SchedulerDriver::LostPromptEnd(const Sequence& sequence) const {
  const auto model = static_cast<size_t>(sequence.model);
  const std::vector<int32_t>& windows = options_.models[model].windows;
  return std::any_of(windows.begin(), windows.end(), [&](int32_t window) {
    const auto first_block = [&](int32_t position) {
      return std::max(0, position + 1 - window) / kBlockTokens;
    };
    return window > 0 &&
           first_block(sequence.computed) > first_block(sequence.prompt_tokens);
  });
}

StepResult SchedulerDriver::Compute(const StepPart& part) {
  const Sequence& sequence = *part.sequence;
  Shadow& shadow = requests_.at(sequence.id);
  EXPECT_EQ(sequence.computed, shadow.computed);
  shadow.computed += part.num_tokens;
  for (int32_t i = sequence.computed; i < shadow.computed; ++i) {
    const bool scored =
        i >= sequence.prompt_tokens && !shadow.request.continuations.empty();
    EXPECT_EQ(sequence.tokens[static_cast<size_t>(i)],
              scored ? ContinuationToken(
                           sequence.id, shadow.continuation,
                           static_cast<size_t>(i - sequence.prompt_tokens))
                     : Token(sequence.id, i));
  }
  for (int32_t row = part.logits_rows; row > 0; --row) {
    shadow.used_logits.push_back(shadow.computed - row);
  }
  StepResult result;
  if (shadow.computed < sequence.length()) return result;
  EXPECT_GE(part.logits_rows, 1);
  if (!shadow.request.continuations.empty()) {
    if (shadow.NextContinuation()) {
      result.continuation = shadow.continuation;
      shadow.computed = sequence.prompt_tokens;
    } else {
      result.end = EndCause::kLength;
    }
    return result;
  }
  if (shadow.request.sampling.max_tokens > 0) {
    result.token = Token(sequence.id, sequence.length());
    ++shadow.generated;
  }
  if (shadow.generated == shadow.stop_after) {
    result.end = EndCause::kStop;
  } else if (sequence.prompt_tokens + shadow.generated == sequence.max_length) {
    result.end = EndCause::kLength;
  }
  return result;
}

void SchedulerDriver::End(RequestId id, EndCause cause) {
  EXPECT_FALSE(requests_.at(id).ended.has_value()) << id << " ends twice";
  requests_.at(id).ended = cause;
  running_.erase(id);
}

}  // namespace headcount
