// A pruned model against the dense one on the same examples, and what may be
// claimed from that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "prune/gate_scorer.h"
#include "prune/paired_statistics.h"

namespace headcount {

enum class Metric {
  kAccuracy,  // share of labels that are right
  kLogprob,   // of the target text: nats a token
  kKl,        // nothing was expected: only the distance from the dense answers
};

// The share of a class's examples that are labelled as it.
struct ClassRecall {
  std::string label = {};
  double dense = 0;
  double pruned = 0;
  int64_t n = 0;
};

struct Comparison {
  Metric metric = Metric::kKl;
  int64_t n = 0;
  double dense = 0;  // of the metric, mean
  double pruned = 0;
  double loss = 0;           // dense - pruned; of kKl, the KL itself
  Bounds loss95 = {};        // paired bootstrap, 95 %
  Bounds loss_bounds = {};   // each side alone holds with 95 %; see Compare
  PairedCounts counts = {};  // of kAccuracy, as mcnemar and worst
  double mcnemar = 1;
  ClassRecall worst = {};      // the class whose recall falls most
  bool has_agreement = false;  // false: not all answers are labels
  double agreement = 0;        // share of examples with the dense label
  bool has_kl = true;          // false: the outcomes had none, and these are 0
  double kl_mean = 0;
  Bounds kl95 = {};
  double kl_p95 = 0;  // 95 % of the examples do not exceed it
};

// `truth`: [example], only for kAccuracy. The one-sided bounds are Tango's for
// kAccuracy, else the mean's by the normal distribution. At least one example.
Comparison Compare(const std::vector<Outcome>& dense,
                   const std::vector<Outcome>& pruned,
                   const std::vector<std::string>& truth, Metric metric,
                   uint64_t seed);

enum class Verdict { kHolds, kFails, kNotEnoughData };

// Of "the loss is at most `margin`": holds if the upper bound says so, fails if
// the lower bound is over it.
Verdict Judge(const Comparison& comparison, double margin);

// A sentence on that for people, with the examples that would be needed. Says
// "not enough data to claim this" where that is so.
std::string Claim(const Comparison& comparison, double margin);

// "97.43 %", "-1.234 nats": a value of the metric, and a difference of two.
std::string FormatMetric(Metric metric, double value);
std::string FormatLoss(Metric metric, double loss);

// The largest saving that may be claimed, by testing masks that take out more
// and more in this order and stopping at the first that does not hold: one 5 %
// error for the whole series (fixed-sequence testing, Maurer et al. 1995).
// Index into `path`; -1: not even the first.
int ChooseOnPath(const std::vector<Comparison>& path, double margin);

}  // namespace headcount
