// Watches a Scheduler from outside and says what it does wrong. It keeps its
// own account of requests, blocks, models and service, and shares no code with
// what it judges: it sees plans, sequences and what the pool tells everybody.
//
// The numbers in its findings are those of the table in README.md here.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/scheduler.h"
#include "tests/sim/block_ledger.h"
#include "tests/sim/record.h"
#include "tests/sim/service_watch.h"
#include "tests/sim/verdict.h"
#include "tests/sim/world.h"

namespace headcount::sim {

struct OracleCounts {
  uint64_t accepted = 0;
  uint64_t ended = 0;
  uint64_t preemptions = 0;
  uint64_t gathered = 0;
  uint64_t hit_blocks = 0;    // of the prefix cache
  int64_t longest_pause = 0;  // steps in which nobody came further
  int64_t longest_wait = 0;   // steps that the oldest request waited
};

class Oracle {
 public:
  Oracle(const World& world, const Scheduler* scheduler, const BlockPool* pool,
         Verdict* verdict);

  // As Scheduler's. Called after it.
  void AddedModel(int index, const SchedulerModel& model);
  void RemovedModel(int index);
  // Whether such a request can ever run, by own arithmetic.
  bool Fits(const Request& request) const;

  // Before the step in which it is submitted.
  void Submitted(RequestId id, const Request& request, const Wish& wish);
  void BeforeStep();
  void AfterStep(absl::Time now, const StepPlan& plan,
                 const std::vector<EndedRequest>& asked);
  void AfterCommit(const StepPlan& plan, const std::vector<StepResult>& results,
                   absl::Duration duration);
  // Walks all blocks and sums. Between steps.
  void CheckDeeply();
  // All has ended.
  void CheckEmpty();

  Record* Find(RequestId id);
  const std::vector<std::unique_ptr<Record>>& live() const { return live_; }
  const std::optional<ModelRecord>& model(int index) const {
    return models_[static_cast<size_t>(index)];
  }
  int num_models() const { return static_cast<int>(models_.size()); }
  const OracleCounts& counts() const { return counts_; }

  // The token that a greedy model draws after what has this content.
  static int32_t NextToken(uint64_t content) {
    return static_cast<int32_t>(content % 50000);
  }

 private:
  struct Service {
    double first = 0;
    double second = 0;
  };

  ModelRecord& Of(const Record& record) {
    return *models_[static_cast<size_t>(record.model)];
  }
  BlockOwner OwnerOf(const Record& record, size_t group);
  const BlockTable& TableOf(const Record& record, size_t group) const {
    return record.sequence->tables[group];
  }
  static void Extend(Record* record, const std::vector<int32_t>& tokens,
                     size_t count);
  uint64_t KeyOf(const Record& record, size_t group, int64_t block) const;

  // oracle.cc: what a step did
  void ObserveEnds(absl::Time now, const StepPlan& plan,
                   const std::vector<EndedRequest>& asked);
  void Remove(Record* record);
  void ReleaseAll(Record* record);
  void ObservePreemptions(const StepPlan& plan);
  void CheckGathered(Record* record);
  void ObserveGrowth(Record* record);
  void ObserveParts(const StepPlan& plan);
  void ObserveAdmission(Record* record);
  void CheckReuse(Record* record);
  void CheckRoom(Record* record);
  // oracle_commit.cc: what a commit did
  void CommitPart(Record* record, int32_t tokens, const StepResult& result);
  void Follow(Record* record, size_t continuation, int32_t before);
  void PublishFull(Record* record);
  void ObserveSlide(Record* record);
  void AppendToken(Record* record, int32_t token);
  void CheckSolo(const Record& record);
  // oracle_order.cc: who comes first
  void CheckBudget(const StepPlan& plan);
  void CheckDecoders(const StepPlan& plan);
  void CheckAdmissionOrder();
  void CheckVictims(const StepPlan& plan);
  void CheckFloors(const StepPlan& plan);
  void CheckWatermark();
  void CheckProgress(const StepPlan& plan);
  void CheckTenants();
  void CheckTurns();
  bool FitsFloor(const Record& record) const;
  bool FloorInReach(int model, const Record* oldest) const;
  bool WasAdmitted(const Record* record) const;  // in this step
  bool CanAdmit(const StepPlan& plan) const;

  const World& world_;
  const Scheduler* const scheduler_;
  const BlockPool* const pool_;
  Verdict* const verdict_;
  BlockLedger blocks_;
  std::vector<std::optional<ModelRecord>> models_;
  std::vector<std::unique_ptr<Record>> live_;  // by id
  std::set<std::pair<absl::Time, RequestId>> deadlines_;
  uint64_t models_added_ = 0;
  int64_t step_ = 0;

  // Of this step.
  std::vector<Record*> planned_;  // [plan.parts]
  std::vector<Record*> admitted_;
  struct Victim {
    Record* record;
    bool oldest;
  };
  std::vector<Victim> victims_;

  int64_t progressed_ = 0;  // the step in which somebody last came further
  RequestId oldest_ = 0;
  int64_t oldest_since_ = 0;  // the step
  std::array<double, 2> tenant_service_ = {};
  ServiceWatch tenants_;
  std::vector<double> lane_service_;              // [lane] over its share
  std::vector<std::vector<ServiceWatch>> turns_;  // [lane][lane]
  double longest_turn_ = 0;                       // seconds over share
  OracleCounts counts_;
};

}  // namespace headcount::sim
