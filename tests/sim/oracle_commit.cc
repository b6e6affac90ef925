// What a commit must have done to sequences, blocks and streams.
#include <algorithm>

#include "heads/kv_geometry.h"
#include "tests/sim/oracle.h"
#include "tests/sim/random.h"

namespace headcount::sim {
namespace {

int32_t FirstSeen(int32_t position, int32_t window) {
  return window == 0 ? 0 : std::max(0, position + 1 - window);
}

}  // namespace

void Oracle::AfterCommit(const StepPlan& plan,
                         const std::vector<StepResult>& results,
                         absl::Duration duration) {
  if (plan.parts.empty()) return;
  const auto lane =
      static_cast<size_t>(models_[static_cast<size_t>(plan.model)]->lane);
  const double seconds =
      absl::ToDoubleSeconds(duration) / models_[lane]->model.share;
  lane_service_[lane] += seconds;
  longest_turn_ = std::max(longest_turn_, seconds);
  for (size_t i = 0; i < planned_.size(); ++i) {
    CommitPart(planned_[i], plan.parts[i].num_tokens, results[i]);
    if (verdict_->broken()) return;
  }
  blocks_.CheckUsed();
  CheckTenants();
  CheckTurns();
}

void Oracle::CommitPart(Record* record, int32_t tokens,
                        const StepResult& result) {
  const int32_t before = record->computed;
  record->computed += tokens;
  record->next_row = std::max(record->next_row, record->computed);
  if (record->computed > record->most_computed) {
    record->most_computed = record->computed;
    progressed_ = step_;
  }
  if (result.token) AppendToken(record, *result.token);
  if (result.end == EndCause::kError) return Remove(record);
  PublishFull(record);
  if (result.end) {
    verdict_->Expect(!scheduler_->Lives(record->id), "I6 what ended is gone",
                     "request ", record->id);
    CheckSolo(*record);
    return Remove(record);
  }
  if (result.continuation) {
    Follow(record, *result.continuation, before);
    if (!record->running) return;
  }
  verdict_->Expect(record->sequence->computed == record->computed,
                   "I6 what is computed stays so", "request ", record->id);
  ObserveSlide(record);
}

// A continuation takes the place of the one before. Where that has moved a
// window past the prompt's end, all is computed anew.
void Oracle::Follow(Record* record, size_t continuation, int32_t before) {
  const auto prompt = static_cast<size_t>(record->prompt_tokens);
  record->continuation = continuation;
  record->tokens.resize(prompt);
  record->content.resize(prompt);
  const std::vector<int32_t>& next = record->continuations[continuation];
  Extend(record, next, next.size() - 1);
  record->computed = record->prompt_tokens;
  record->next_row = record->prompt_tokens;
  record->most_computed = record->prompt_tokens;
  progressed_ = step_;
  const auto& groups = Of(*record).model.groups;
  const bool lost = std::any_of(
      groups.begin(), groups.end(), [&](const SchedulerGroup& group) {
        const int32_t window = group.retention.window;
        return FirstSeen(before, window) / kBlockTokens >
               FirstSeen(record->prompt_tokens, window) / kBlockTokens;
      });
  if (!lost) return;
  record->running = false;
  record->computed = 0;
  --Of(*record).running;
  ++Of(*record).waiting;
  ReleaseAll(record);
  verdict_->Expect(record->sequence->computed == 0,
                   "I12 what a window has lost is computed anew", "request ",
                   record->id);
}

void Oracle::PublishFull(Record* record) {
  if (!record->shares_prefix) return;
  const int64_t full = record->lasting() / kBlockTokens;
  for (size_t g = 0; g < record->blocks.size(); ++g) {
    for (int64_t i = record->published; i < full; ++i) {
      blocks_.Publish(KeyOf(*record, g, i),
                      record->blocks[g][static_cast<size_t>(i)]);
    }
  }
  record->published = std::max(record->published, full);
}

// Blocks that left the window went to the end of the table, or to the pool.
void Oracle::ObserveSlide(Record* record) {
  for (size_t g = 0; g < record->blocks.size(); ++g) {
    const int32_t window = Of(*record).model.groups[g].retention.window;
    const std::vector<int64_t>& now = TableOf(*record, g).offsets();
    std::vector<int64_t>& before = record->blocks[g];
    const auto holes =
        static_cast<size_t>(FirstSeen(record->computed, window) / kBlockTokens);
    std::vector<int64_t> left;
    for (size_t i = 0; i < std::min(holes, before.size()); ++i) {
      if (before[i] >= 0) left.push_back(std::exchange(before[i], -1));
    }
    if (!verdict_->Expect(
            now.size() >= before.size() &&
                std::equal(before.begin(), before.end(), now.begin()),
            "I1 keeps the blocks that its window sees, and no other",
            "request ", record->id)) {
      return;
    }
    while (before.size() < now.size()) {
      const auto moved =
          std::find(left.begin(), left.end(), now[before.size()]);
      if (!verdict_->Expect(moved != left.end(), "I1 a block came from nowhere",
                            "request ", record->id)) {
        return;
      }
      left.erase(moved);
      before.push_back(now[before.size()]);
    }
    for (const int64_t offset : left) blocks_.Release(offset);
  }
}

void Oracle::AppendToken(Record* record, int32_t token) {
  Extend(record, {token}, 1);
  ++record->generated;
  ++record->unread;
  if (world_.kind == WorldKind::kDuel) {
    tenant_service_[record->tenant == "a" ? 0 : 1] += 2;
  }
}

// The answer is that of the request alone, worked out without a scheduler.
void Oracle::CheckSolo(const Record& record) {
  uint64_t content = record.root;
  for (const int32_t token : record.prompt) {
    content = Mix(content, static_cast<uint64_t>(token));
  }
  if (record.scores()) {
    verdict_->Expect(record.continuation == record.continuations.size() ||
                         record.computed == record.length(),
                     "I12 all continuations are scored", "request ", record.id);
    return;
  }
  for (int32_t i = 0; i < record.generated; ++i) {
    const auto place = static_cast<size_t>(record.prompt_tokens + i);
    if (!verdict_->Expect(record.tokens[place] == NextToken(content),
                          "I12 the answer is that of a solo run", "request ",
                          record.id, ", token ", i)) {
      return;
    }
    content = Mix(content, static_cast<uint64_t>(record.tokens[place]));
  }
}

}  // namespace headcount::sim
