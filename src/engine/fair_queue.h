// Which waiting sequence comes next: of the highest priority; among those, of
// the tenant that was served least; among those, the oldest.
//
// Service is counted in tokens, by a virtual token counter (Sheng et al. 2024,
// "Fairness in Serving Large Language Models", arXiv:2401.00588): a prompt's
// when it is admitted, one generated counts kGeneratedCost. A tenant that comes
// back after a pause is not ahead of those that waited meanwhile. Two tenants
// that always have something waiting, with equal priorities, are served alike
// up to a bound that does not grow with time.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/sequence.h"

namespace headcount {

// What one tenant asks.
struct Flow {
  using Rank = std::pair<int64_t, RequestId>;  // minus priority, id

  int64_t service = 0;
  int64_t owed = 0;  // charged since Settle
  int64_t live = 0;  // sequences, waiting or not
  std::map<Rank, Sequence*> waiting;
};

// Not thread-safe.
class FairQueue {
 public:
  static constexpr int64_t kGeneratedCost = 2;
  // Flows without a sequence whose service is remembered.
  static constexpr size_t kMaxIdleFlows = 1024;

  FairQueue() = default;
  FairQueue(const FairQueue&) = delete;
  FairQueue& operator=(const FairQueue&) = delete;

  // The sequence lives, waiting or not, from Open to Close, both once. It
  // finds its flow in Sequence::flow.
  void Open(Sequence* sequence);
  void Close(Sequence* sequence);

  void Push(Sequence* sequence);
  void Erase(Sequence* sequence);  // CHECKs that it waits

  Sequence* Next() const;  // null: nobody waits. CHECKs that all is settled
  int64_t size() const { return size_; }
  bool Contains(const Sequence& sequence) const;

  // Its flow was served so many tokens, which counts from Settle on: a step
  // charges many times, and orders flows once.
  void Charge(const Sequence& sequence, int64_t tokens);
  void Settle();

  // CHECK-fails where an invariant does not hold.
  void CheckInvariants() const;

 private:
  // Minus priority, service, id of a flow's first.
  using Turn = std::tuple<int64_t, int64_t, RequestId>;

  static Flow::Rank RankOf(const Sequence& sequence);
  static Turn TurnOf(const Flow& flow);
  // Before and after every change of a flow that has somebody waiting.
  void Unlist(const Flow& flow);
  void List(Flow* flow);
  // What a flow is lifted to that had nobody waiting.
  int64_t LeastService() const;
  void ForgetIdle();

  std::map<std::string, Flow> flows_;  // by tenant
  std::map<Turn, Flow*> turns_;        // of flows with somebody waiting
  std::multiset<int64_t> services_;    // of the same
  std::vector<Flow*> owing_;           // with owed > 0
  int64_t last_service_ = 0;           // of who was served when nobody waited
  int64_t size_ = 0;
  size_t idle_flows_ = 0;
};

}  // namespace headcount
