// Asks what answers lose without some heads. The search sees nothing else of a
// model, so tests drive it with arithmetic.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "prune/prune_units.h"

namespace headcount {

// Three sets of examples that share none: heads are ranked on the first, the
// mask is chosen on the second, and the third is read once.
enum class Split { kRank = 0, kSelect = 1, kTest = 2 };
inline constexpr int kSplits = 3;

// One setting on one example.
struct Outcome {
  double kl = 0;  // KL(dense || this), nats, mean over the places compared
  // Natural logarithm of what was expected, mean over the places; 0: nothing
  // was.
  double logprob = 0;
  bool right = false;      // classification: the likeliest label is the truth
  std::string label = {};  // classification: the likeliest label
};

struct ScoreTable {
  std::vector<Outcome> dense;                  // [example]
  std::vector<std::vector<Outcome>> settings;  // [setting][example]
};

class GateScorer {
 public:
  virtual ~GateScorer() = default;
  // Every setting on every example of the split, both in their order.
  virtual absl::StatusOr<ScoreTable> Score(
      Split split, const std::vector<UnitSet>& settings) = 0;
};

// Of a setting's outcomes.
double MeanKl(const std::vector<Outcome>& outcomes);

}  // namespace headcount
