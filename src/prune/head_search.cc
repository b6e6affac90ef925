#include "prune/head_search.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"
#include "prune/paired_statistics.h"
#include "prune/seeded_random.h"

namespace headcount {
namespace {

constexpr double kRescoreShare = 0.4;
constexpr double kJointFactor = 1.5;
constexpr size_t kScoredAtOnce = 32;
// Nats: below it, scores are rounding and nothing can be told from their ratio.
constexpr double kNegligibleKl = 1e-4;

int64_t Budget(const PruneUnits& units, double share) {
  // A share such as 0.3 is not exact; a unit that fits must not fail to.
  return static_cast<int64_t>(share * static_cast<double>(units.total_cost) +
                              1e-6);
}

// [layer] -> its units that are not gone.
std::map<int, std::vector<size_t>> LeftByLayer(const PruneUnits& units,
                                               const UnitSet& gone) {
  std::map<int, std::vector<size_t>> left;
  for (size_t i = 0; i < units.units.size(); ++i) {
    if (!gone[i]) left[units.units[i].layer].push_back(i);
  }
  return left;
}

UnitSet SetOf(size_t size, const std::vector<size_t>& members) {
  UnitSet set(size, false);
  for (const size_t member : members) set[member] = true;
  return set;
}

bool Overlap(const UnitSet& a, const UnitSet& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] && b[i]) return true;
  }
  return false;
}

}  // namespace

double MeanKl(const std::vector<Outcome>& outcomes) {
  double sum = 0;
  for (const Outcome& outcome : outcomes) sum += outcome.kl;
  return outcomes.empty() ? 0 : sum / static_cast<double>(outcomes.size());
}

HeadSearch::HeadSearch(const PruneUnits& units, GateScorer* scorer)
    : units_(units), scorer_(scorer), gone_(units.units.size(), false) {
  CHECK(!units.units.empty());
}

std::vector<HeadSearch::Move> HeadSearch::MovesLeft() const {
  std::vector<Move> moves;
  const size_t size = gone_.size();
  const auto known = [&](const UnitSet& set) {
    const auto found = last_kl_.find(set);
    return found == last_kl_.end() ? 0.0 : found->second;
  };
  const auto add = [&](const std::vector<size_t>& members) {
    UnitSet set = SetOf(size, members);
    double kl = known(set);
    // What is left of a layer has not been scored as a whole.
    if (!last_kl_.contains(set)) {
      for (const size_t unit : members) kl += known(SetOf(size, {unit}));
    }
    const int64_t cost = CostOf(units_, set);
    moves.push_back({.units = std::move(set), .kl = kl, .cost = cost});
  };
  for (size_t i = 0; i < size; ++i) {
    if (!gone_[i]) add({i});
  }
  for (const auto& [layer, members] : LeftByLayer(units_, gone_)) {
    if (members.size() > 1) add(members);
  }
  return moves;
}

bool HeadSearch::Cheaper(const Move& a, const Move& b) {
  return a.kl * static_cast<double>(b.cost) <
         b.kl * static_cast<double>(a.cost);
}

bool HeadSearch::Fits(const Move& move, int64_t budget) const {
  return CostOf(units_, gone_) + move.cost <= budget;
}

const HeadSearch::Move* HeadSearch::CheapestThatFits(int64_t budget) const {
  const Move* cheapest = nullptr;
  for (const Move& move : moves_) {
    if (Overlap(gone_, move.units) || !Fits(move, budget)) continue;
    if (cheapest == nullptr || Cheaper(move, *cheapest)) cheapest = &move;
  }
  return cheapest;
}

bool HeadSearch::GoesOn(int64_t budget, int64_t enough) const {
  return CostOf(units_, gone_) < enough && CheapestThatFits(budget) != nullptr;
}

std::vector<size_t> HeadSearch::NextToScore(int64_t budget, size_t most) const {
  std::vector<size_t> next;
  for (size_t i = 0; i < moves_.size(); ++i) {
    if (!moves_[i].scored) next.push_back(i);
  }
  std::stable_sort(next.begin(), next.end(), [&](size_t a, size_t b) {
    const bool a_fits = Fits(moves_[a], budget);
    const bool b_fits = Fits(moves_[b], budget);
    return a_fits != b_fits ? a_fits : Cheaper(moves_[a], moves_[b]);
  });
  if (next.size() > most) next.resize(most);
  // By layer: what differs late is then computed together, from there on.
  std::sort(next.begin(), next.end());
  return next;
}

absl::Status HeadSearch::Score(const std::vector<size_t>& moves) {
  std::vector<UnitSet> settings = {gone_};
  for (const size_t move : moves) {
    settings.push_back(Union(gone_, moves_[move].units));
  }
  absl::StatusOr<ScoreTable> table = scorer_->Score(Split::kRank, settings);
  if (!table.ok()) return table.status();
  CHECK(table->settings.size() == settings.size());
  kl_ = MeanKl(table->settings[0]);
  for (size_t i = 0; i < moves.size(); ++i) {
    Move& move = moves_[moves[i]];
    move.kl = MeanKl(table->settings[i + 1]) - kl_;
    move.scored = true;
    last_kl_[move.units] = move.kl;
  }
  if (unit_kl_.empty()) KeepRanks(*table);
  return absl::OkStatus();
}

// The first time: every unit is left, and every move is scored.
void HeadSearch::KeepRanks(const ScoreTable& table) {
  for (size_t i = 0; i < gone_.size(); ++i) {
    unit_kl_.push_back(moves_[i].kl);
    std::vector<double>& examples = example_kl_.emplace_back();
    for (const Outcome& outcome : table.settings[i + 1]) {
      examples.push_back(outcome.kl);
    }
  }
  layer_kl_.assign(static_cast<size_t>(units_.units.back().layer) + 1, 0.0);
  // A layer of one unit is that unit; the moves of others follow.
  for (const Move& move : moves_) {
    const auto first = static_cast<size_t>(
        std::find(move.units.begin(), move.units.end(), true) -
        move.units.begin());
    layer_kl_[static_cast<size_t>(units_.units[first].layer)] = move.kl;
  }
}

absl::Status HeadSearch::Rank() {
  moves_ = MovesLeft();
  absl::Status status = Score(NextToScore(units_.total_cost, moves_.size()));
  if (!status.ok()) return status;
  std::stable_sort(moves_.begin(), moves_.end(), Cheaper);
  fresh_ = true;
  return absl::OkStatus();
}

absl::Status HeadSearch::Rescore(int64_t budget) {
  moves_ = MovesLeft();
  const Move* cheapest = nullptr;
  do {
    absl::Status status = Score(NextToScore(budget, kScoredAtOnce));
    if (!status.ok()) return status;
    cheapest = CheapestThatFits(budget);
  } while (cheapest != nullptr && !cheapest->scored);
  std::stable_sort(moves_.begin(), moves_.end(), Cheaper);
  ++rescored_;
  fresh_ = true;
  return absl::OkStatus();
}

std::vector<HeadSearch::Move> HeadSearch::Fill(int64_t budget,
                                               int64_t enough) const {
  std::vector<Move> block;
  UnitSet taken = gone_;
  int64_t cost = CostOf(units_, gone_);
  for (const Move& move : moves_) {
    if (cost >= enough) break;
    if (Overlap(taken, move.units) || cost + move.cost > budget) continue;
    if (!move.scored) break;  // it could be dearer than those behind it
    block.push_back(move);
    taken = Union(taken, move.units);
    cost += move.cost;
  }
  return block;
}

absl::StatusOr<double> HeadSearch::JointKl(const UnitSet& gone) {
  absl::StatusOr<ScoreTable> table = scorer_->Score(Split::kRank, {gone});
  if (!table.ok()) return table.status();
  return MeanKl(table->settings.front());
}

void HeadSearch::Take(const std::vector<Move>& moves, double kl) {
  for (const Move& move : moves) gone_ = Union(gone_, move.units);
  kl_ = kl;
  fresh_ = false;
}

absl::StatusOr<PathPoint> HeadSearch::Extend(double share, double enough) {
  CHECK(!unit_kl_.empty()) << "Rank() comes first";
  const int64_t budget = Budget(units_, share);
  const int64_t wanted = Budget(units_, enough);
  std::vector<Move> block = Fill(budget, wanted);
  const bool much =
      share > kRescoreShare && CostOf(units_, gone_) < std::min(budget, wanted);
  if (much || (block.empty() && GoesOn(budget, wanted))) {
    if (absl::Status status = Rescore(budget); !status.ok()) return status;
    block = Fill(budget, wanted);
  }
  while (!block.empty()) {
    double sum = 0;
    UnitSet all = gone_;
    for (const Move& move : block) {
      sum += move.kl;
      all = Union(all, move.units);
    }
    const absl::StatusOr<double> joint = JointKl(all);
    if (!joint.ok()) return joint.status();
    const bool dearer = *joint - kl_ > kJointFactor * sum + kNegligibleKl;
    if (dearer && fresh_ && block.size() > 1) {
      // Together they cost more than alone: some stand in for each other. Only
      // the cheaper half, if that adds up, and then new scores for the rest.
      block.resize(block.size() / 2);
      continue;
    }
    // Old scores may not know that what is gone stood in for one of these.
    if (!dearer || fresh_) Take(block, *joint);
    if (!GoesOn(budget, wanted)) break;
    if (absl::Status status = Rescore(budget); !status.ok()) return status;
    block = Fill(budget, wanted);
  }
  return PathPoint{.gone = gone_,
                   .share = static_cast<double>(CostOf(units_, gone_)) /
                            static_cast<double>(units_.total_cost),
                   .kl = kl_};
}

UnitSet Cheapest(const PruneUnits& units, const std::vector<double>& kl,
                 double share) {
  CHECK(kl.size() == units.units.size());
  std::vector<size_t> order(kl.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return kl[a] * static_cast<double>(units.units[b].cost) <
           kl[b] * static_cast<double>(units.units[a].cost);
  });
  UnitSet gone(kl.size(), false);
  int64_t cost = 0;
  for (const size_t unit : order) {
    if (cost + units.units[unit].cost > Budget(units, share)) continue;
    gone[unit] = true;
    cost += units.units[unit].cost;
  }
  return gone;
}

double MaskStability(const PruneUnits& units,
                     const std::vector<std::vector<double>>& example_kl,
                     double share, uint64_t seed, int resamples) {
  CHECK(!example_kl.empty() && !example_kl.front().empty());
  const size_t examples = example_kl.front().size();
  std::vector<double> kl;
  kl.reserve(example_kl.size());
  for (const std::vector<double>& of_unit : example_kl) {
    kl.push_back(MeanOf(of_unit));
  }
  UnitSet kept = Cheapest(units, kl, share);
  kept.flip();
  SeededRandom random(seed);
  double sum = 0;
  for (int i = 0; i < resamples; ++i) {
    std::fill(kl.begin(), kl.end(), 0.0);
    for (size_t draw = 0; draw < examples; ++draw) {
      const size_t example = random.Below(examples);
      for (size_t u = 0; u < kl.size(); ++u) kl[u] += example_kl[u][example];
    }
    UnitSet again = Cheapest(units, kl, share);
    again.flip();
    sum += Jaccard(kept, again);
  }
  return sum / resamples;
}

}  // namespace headcount
