// A model that is arithmetic: what its answers lose is a sum over the units
// that are gone, with pairs that stand in for each other.
#pragma once

#include <utility>
#include <vector>

#include "prune/gate_scorer.h"

namespace headcount {

class SyntheticScorer final : public GateScorer {
 public:
  struct Pair {
    size_t a, b;
    double kl;  // more, when both are gone
  };

  SyntheticScorer(std::vector<double> unit_kl, std::vector<Pair> pairs,
                  size_t examples)
      : unit_kl_(std::move(unit_kl)),
        pairs_(std::move(pairs)),
        examples_(examples) {}

  double Kl(const UnitSet& gone) const {
    double kl = 0;
    for (size_t i = 0; i < gone.size(); ++i) kl += gone[i] ? unit_kl_[i] : 0;
    for (const Pair& pair : pairs_) {
      kl += gone[pair.a] && gone[pair.b] ? pair.kl : 0;
    }
    return kl;
  }

  absl::StatusOr<ScoreTable> Score(
      Split, const std::vector<UnitSet>& settings) override {
    ++calls;
    scored += settings.size();
    ScoreTable table;
    table.dense.resize(examples_);
    for (const UnitSet& gone : settings) {
      std::vector<Outcome>& row = table.settings.emplace_back(examples_);
      // Examples differ, and their mean is Kl.
      for (size_t e = 0; e < examples_; ++e) {
        const double place =
            (static_cast<double>(e) + 0.5) / static_cast<double>(examples_);
        row[e].kl = Kl(gone) * 2 * place;
      }
    }
    return table;
  }

  int calls = 0;
  size_t scored = 0;  // settings

 private:
  const std::vector<double> unit_kl_;
  const std::vector<Pair> pairs_;
  const size_t examples_;
};

// `layers` layers of `groups` KV heads with `group_size` query heads each, 100
// bytes a token each.
inline PrunableModel UniformModel(int layers, int groups, int group_size) {
  PrunableModel model(static_cast<size_t>(layers));
  for (PrunableLayer& layer : model) {
    layer.query_heads = groups * group_size;
    layer.kv_heads = groups;
    for (int kv = 0; kv < groups; ++kv) {
      PrunableGroup& group = layer.groups.emplace_back();
      group.kv_head = kv;
      group.bytes_per_token = 100;
      for (int i = 0; i < group_size; ++i) {
        group.query_heads.push_back(kv * group_size + i);
      }
    }
  }
  return model;
}

}  // namespace headcount
