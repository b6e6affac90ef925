#include "engine/fair_queue.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace headcount {
namespace {

class FairQueueTest : public ::testing::Test {
 protected:
  // Waits in the queue.
  Sequence* Add(const std::string& tenant, int32_t priority = 0) {
    Request request;
    request.prompt = {1};
    request.tenant = tenant;
    request.priority = priority;
    owned_.push_back(std::make_unique<Sequence>(
        ++last_id_, std::move(request), 100, 0, /*may_share_prefix=*/false));
    Sequence* const sequence = owned_.back().get();
    queue_.Open(sequence);
    queue_.Push(sequence);
    return sequence;
  }

  // The next one is served so many tokens and ends.
  Sequence* Serve(int64_t tokens) {
    Sequence* const next = queue_.Next();
    queue_.Erase(next);
    queue_.Charge(*next, tokens);
    queue_.Settle();
    queue_.Close(next);
    queue_.CheckInvariants();
    return next;
  }

  FairQueue queue_;
  std::vector<std::unique_ptr<Sequence>> owned_;
  RequestId last_id_ = 0;
};

TEST_F(FairQueueTest, OneTenantIsServedInOrderOfArrival) {
  EXPECT_EQ(queue_.Next(), nullptr);
  std::vector<Sequence*> all;
  for (int i = 0; i < 5; ++i) all.push_back(Add("a"));
  for (Sequence* const expected : all) EXPECT_EQ(Serve(100), expected);
  EXPECT_EQ(queue_.Next(), nullptr);
}

TEST_F(FairQueueTest, HigherPrioritiesGoFirst) {
  Sequence* const low = Add("a", -1);
  Sequence* const middle = Add("b");
  Sequence* const high = Add("a", 7);
  EXPECT_EQ(Serve(1000), high);
  EXPECT_EQ(Serve(1), middle);
  EXPECT_EQ(Serve(1), low);
}

TEST_F(FairQueueTest, AFloodDoesNotDelayAnotherTenant) {
  for (int i = 0; i < 100; ++i) Add("flood");
  Serve(10);
  Sequence* const light = Add("light");
  Serve(10);  // both had as much: the older one
  EXPECT_EQ(Serve(10), light);
}

TEST_F(FairQueueTest, APauseSavesNoServiceUp) {
  Add("busy");
  Add("other");
  Serve(1);
  Serve(1);
  for (int i = 0; i < 50; ++i) Add("busy");
  for (int i = 0; i < 20; ++i) Serve(100);
  for (int i = 0; i < 50; ++i) Add("other");
  std::map<std::string, int> served;
  for (int i = 0; i < 20; ++i) ++served[Serve(100)->tenant];
  EXPECT_EQ(served["busy"], 10);
  EXPECT_EQ(served["other"], 10);
}

// The bound of the paper's theorem: as long as both wait, their service differs
// by what the largest request costs, twice.
TEST_F(FairQueueTest, BackloggedTenantsAreServedAlike) {
  std::mt19937 random(1);
  const std::vector<std::string> tenants = {"a", "b", "c"};
  const std::map<std::string, int64_t> largest = {
      {"a", 10}, {"b", 1000}, {"c", 200}};
  std::map<std::string, int64_t> service;
  std::map<std::string, int> waiting;
  for (int i = 0; i < 5000; ++i) {
    for (const std::string& tenant : tenants) {
      while (waiting[tenant] < 2) {
        Add(tenant);
        ++waiting[tenant];
      }
    }
    const std::string tenant = queue_.Next()->tenant;
    const int64_t cost = 1 + random() % largest.at(tenant);
    Serve(cost);
    --waiting[tenant];
    service[tenant] += cost;
    const auto [least, most] =
        std::minmax({service["a"], service["b"], service["c"]});
    ASSERT_LE(most - least, 2 * 1000) << "after " << i;
  }
}

TEST_F(FairQueueTest, ForgetsTenantsThatAreGone) {
  for (int i = 0; i < 3000; ++i) {
    Add("busy");
    Add("tenant" + std::to_string(i));
    Serve(1);
    Serve(5 + i);
  }
  queue_.CheckInvariants();  // of which at most kMaxIdleFlows are idle
  EXPECT_EQ(queue_.size(), 0);
}

}  // namespace
}  // namespace headcount
