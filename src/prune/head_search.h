// Which heads go first: units in the order of what the answers lose without
// them for each byte saved, and from that a path of nested masks.
//
//   HeadSearch search(units, &scorer);
//   status = search.Rank();
//   absl::StatusOr<PathPoint> half = search.Extend(0.5);
//
// Each unit is left out alone, and the Kullback-Leibler divergence from the
// dense answers is its score: no labels needed, and on a trained encoder it
// ranked better than the loss of labels did. Scores add up only while little is
// gone, so past 40 % of the cost, or when a step costs over 1.5 times what its
// units cost alone, the rest is scored again with what is already gone: the
// cheapest by what is known of them, until the cheapest of all is one of those
// (lazy greedy search; Minoux 1978, doi:10.1007/BFb0006528). Without more heads
// an answer rarely loses less, so that the others could hardly come first. What
// is left of a layer counts as the sum of its units until it is scored.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "prune/gate_scorer.h"
#include "prune/prune_units.h"

namespace headcount {

// One mask of the path. Each contains the one before.
struct PathPoint {
  UnitSet gone;
  double share = 0;  // of the total cost that is gone
  double kl = 0;     // on the rank split
};

class HeadSearch {
 public:
  // All outlive the search.
  HeadSearch(const PruneUnits& units, GateScorer* scorer);

  // Scores every unit alone, and every layer's units together. Call first.
  absl::Status Rank();

  // Takes out more, up to `share` of the total cost: whatever fits, until
  // `enough` of it is gone. The same point again if nothing does. Shares rise
  // from call to call.
  absl::StatusOr<PathPoint> Extend(double share, double enough = 1);

  // KL on the rank split without the unit alone: [unit].
  const std::vector<double>& unit_kl() const { return unit_kl_; }
  // The same for each example: [unit][example].
  const std::vector<std::vector<double>>& example_kl() const {
    return example_kl_;
  }
  // KL without a layer's attention: [layer]; 0 for a layer without units.
  const std::vector<double>& layer_kl() const { return layer_kl_; }
  int rescored() const { return rescored_; }  // how often

 private:
  // Units that go together: one, or all that a layer has left.
  struct Move {
    UnitSet units;
    double kl = 0;  // what taking it costs, as last scored
    int64_t cost = 0;
    bool scored = false;  // since the last Rescore began
  };

  static bool Cheaper(const Move& a, const Move& b);
  std::vector<Move> MovesLeft() const;
  bool Fits(const Move& move, int64_t budget) const;
  // Null if nothing fits.
  const Move* CheapestThatFits(int64_t budget) const;
  // Whether there is something to take before the cost that is gone is
  // `enough`.
  bool GoesOn(int64_t budget, int64_t enough) const;
  // Of moves_, the `most` cheapest that are not scored, first those that fit.
  std::vector<size_t> NextToScore(int64_t budget, size_t most) const;
  absl::Status Score(const std::vector<size_t>& moves);
  void KeepRanks(const ScoreTable& table);
  absl::Status Rescore(int64_t budget);
  // The cheapest moves that fit together, up to one that is not scored or to
  // where the cost that is gone is `enough`.
  std::vector<Move> Fill(int64_t budget, int64_t enough) const;
  absl::StatusOr<double> JointKl(const UnitSet& gone);
  void Take(const std::vector<Move>& moves, double kl);

  const PruneUnits& units_;
  GateScorer* const scorer_;
  std::vector<double> unit_kl_;
  std::vector<std::vector<double>> example_kl_;
  std::vector<double> layer_kl_;
  std::vector<Move> moves_;            // of what is left, cheapest first
  std::map<UnitSet, double> last_kl_;  // [Move::units], as last scored
  UnitSet gone_;
  double kl_ = 0;       // of gone_
  bool fresh_ = false;  // moves_ was scored with all of gone_
  int rescored_ = 0;
};

// Units in the order in which `kl`, [unit], says to take them: smallest for
// their cost first, then by place. Fills up to `share` of the total cost.
UnitSet Cheapest(const PruneUnits& units, const std::vector<double>& kl,
                 double share);

// How much the mask depends on the examples: for `resamples` draws of the
// ranking examples with replacement, the Jaccard index of the kept units with
// those kept by all examples, by scores of units alone. Mean.
double MaskStability(const PruneUnits& units,
                     const std::vector<std::vector<double>>& example_kl,
                     double share, uint64_t seed, int resamples = 20);

}  // namespace headcount
