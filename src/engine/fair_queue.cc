#include "engine/fair_queue.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace headcount {

Flow::Rank FairQueue::RankOf(const Sequence& sequence) {
  return {-int64_t{sequence.priority}, sequence.id};
}

FairQueue::Turn FairQueue::TurnOf(const Flow& flow) {
  const Flow::Rank& first = flow.waiting.begin()->first;
  return {first.first, flow.service, first.second};
}

void FairQueue::Open(Sequence* sequence) {
  CHECK(sequence->flow == nullptr) << sequence->id << " is open";
  const auto [entry, is_new] = flows_.try_emplace(sequence->tenant);
  Flow& flow = entry->second;
  if (!is_new && flow.live == 0) --idle_flows_;
  ++flow.live;
  sequence->flow = &flow;
}

void FairQueue::Close(Sequence* sequence) {
  Flow& flow = *std::exchange(sequence->flow, nullptr);
  if (--flow.live > 0) return;
  Settle();
  CHECK(flow.waiting.empty()) << sequence->id << " still waits";
  ++idle_flows_;
  if (flow.service <= LeastService()) {
    // Nothing to remember: it would be lifted.
    flows_.erase(sequence->tenant);
    --idle_flows_;
  } else if (idle_flows_ > kMaxIdleFlows) {
    ForgetIdle();
  }
}

void FairQueue::ForgetIdle() {
  auto least = flows_.end();
  for (auto it = flows_.begin(); it != flows_.end(); ++it) {
    if (it->second.live > 0) continue;
    if (least == flows_.end() || it->second.service < least->second.service) {
      least = it;
    }
  }
  flows_.erase(least);
  --idle_flows_;
}

void FairQueue::Push(Sequence* sequence) {
  Flow& flow = *sequence->flow;
  if (flow.waiting.empty()) {
    flow.service = std::max(flow.service, LeastService());
  } else {
    Unlist(flow);
  }
  CHECK(flow.waiting.emplace(RankOf(*sequence), sequence).second)
      << sequence->id << " waits twice";
  List(&flow);
  ++size_;
}

void FairQueue::Erase(Sequence* sequence) {
  Flow& flow = *sequence->flow;
  CHECK(flow.waiting.count(RankOf(*sequence)) == 1) << sequence->id;
  Unlist(flow);
  flow.waiting.erase(RankOf(*sequence));
  if (!flow.waiting.empty()) List(&flow);
  --size_;
}

Sequence* FairQueue::Next() const {
  CHECK(owing_.empty()) << "charges are not settled";
  if (turns_.empty()) return nullptr;
  return turns_.begin()->second->waiting.begin()->second;
}

bool FairQueue::Contains(const Sequence& sequence) const {
  return sequence.flow->waiting.count(RankOf(sequence)) == 1;
}

void FairQueue::Charge(const Sequence& sequence, int64_t tokens) {
  Flow& flow = *sequence.flow;
  if (flow.owed == 0) owing_.push_back(&flow);
  flow.owed += tokens;
}

void FairQueue::Settle() {
  for (Flow* const flow : owing_) {
    const bool waits = !flow->waiting.empty();
    if (waits) Unlist(*flow);
    flow->service += std::exchange(flow->owed, 0);
    if (waits) List(flow);
    if (services_.empty()) last_service_ = flow->service;
  }
  owing_.clear();
}

void FairQueue::Unlist(const Flow& flow) {
  CHECK(turns_.erase(TurnOf(flow)) == 1);
  services_.erase(services_.find(flow.service));
}

void FairQueue::List(Flow* flow) {
  turns_.emplace(TurnOf(*flow), flow);
  services_.insert(flow->service);
}

int64_t FairQueue::LeastService() const {
  return services_.empty() ? last_service_ : *services_.begin();
}

void FairQueue::CheckInvariants() const {
  int64_t waiting = 0;
  size_t listed = 0;
  size_t idle = 0;
  for (const auto& [tenant, flow] : flows_) {
    const auto waits = static_cast<int64_t>(flow.waiting.size());
    CHECK(waits <= flow.live) << tenant;
    waiting += waits;
    if (flow.live == 0) ++idle;
    if (waits == 0) continue;
    const auto turn = turns_.find(TurnOf(flow));
    CHECK(turn != turns_.end() && turn->second == &flow) << tenant;
    ++listed;
  }
  CHECK(waiting == size_) << waiting;
  CHECK(listed == turns_.size() && listed == services_.size()) << listed;
  CHECK(idle == idle_flows_ && idle <= kMaxIdleFlows) << idle;
}

}  // namespace headcount
