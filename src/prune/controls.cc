#include "prune/controls.h"

#include <algorithm>
#include <map>
#include <utility>

#include "prune/seeded_random.h"

namespace headcount {
namespace {

// [layer] -> its units.
std::map<int, std::vector<size_t>> ByLayer(const PruneUnits& units) {
  std::map<int, std::vector<size_t>> layers;
  for (size_t i = 0; i < units.units.size(); ++i) {
    layers[units.units[i].layer].push_back(i);
  }
  return layers;
}

}  // namespace

UnitSet RandomLike(const PruneUnits& units, const UnitSet& gone,
                   uint64_t seed) {
  SeededRandom random(seed);
  UnitSet result(gone.size(), false);
  for (auto& [layer, members] : ByLayer(units)) {
    const auto count =
        std::count_if(members.begin(), members.end(),
                      [&gone](size_t unit) { return gone[unit]; });
    random.Shuffle(&members);
    for (int64_t i = 0; i < count; ++i) {
      result[members[static_cast<size_t>(i)]] = true;
    }
  }
  return result;
}

UnitSet UniformPerLayer(const PruneUnits& units, const std::vector<double>& kl,
                        const UnitSet& gone) {
  const auto total =
      static_cast<size_t>(std::count(gone.begin(), gone.end(), true));
  auto layers = ByLayer(units);
  std::map<int, size_t> counts;
  size_t given = 0;
  for (const auto& [layer, members] : layers) {
    counts[layer] = total * members.size() / gone.size();
    given += counts[layer];
  }
  for (auto& [layer, count] : counts) {
    if (given == total) break;
    if (count == layers[layer].size()) continue;
    ++count;
    ++given;
  }
  UnitSet result(gone.size(), false);
  for (auto& [layer, members] : layers) {
    std::stable_sort(members.begin(), members.end(),
                     [&kl](size_t a, size_t b) { return kl[a] < kl[b]; });
    for (size_t i = 0; i < counts[layer]; ++i) result[members[i]] = true;
  }
  return result;
}

UnitSet WholeLayers(const PruneUnits& units,
                    const std::vector<double>& layer_kl, const UnitSet& gone) {
  struct Layer {
    double kl;
    int64_t cost;
    std::vector<size_t> members;
  };
  std::vector<Layer> layers;
  for (const auto& [layer, members] : ByLayer(units)) {
    int64_t cost = 0;
    for (const size_t unit : members) cost += units.units[unit].cost;
    layers.push_back({layer_kl[static_cast<size_t>(layer)], cost, members});
  }
  std::stable_sort(layers.begin(), layers.end(),
                   [](const Layer& a, const Layer& b) {
                     return a.kl * static_cast<double>(b.cost) <
                            b.kl * static_cast<double>(a.cost);
                   });
  int64_t left = CostOf(units, gone);
  UnitSet result(gone.size(), false);
  for (const Layer& layer : layers) {
    if (layer.cost > left) continue;
    left -= layer.cost;
    for (const size_t unit : layer.members) result[unit] = true;
  }
  return result;
}

}  // namespace headcount
