// Masks that a careful one must beat: without them, nobody can tell whether the
// search found anything or the model simply has heads to spare.
#pragma once

#include <cstdint>
#include <vector>

#include "prune/prune_units.h"

namespace headcount {

// Units drawn at random, from each layer as many as `gone` takes of it.
UnitSet RandomLike(const PruneUnits& units, const UnitSet& gone, uint64_t seed);

// As many units as `gone` takes, from each layer its share of them (what is
// left over: one each from the first layers), the cheapest by `kl`, [unit].
UnitSet UniformPerLayer(const PruneUnits& units, const std::vector<double>& kl,
                        const UnitSet& gone);

// Whole layers, cheapest first by `layer_kl`, [layer], as many as fit into the
// cost of `gone`; possibly none.
UnitSet WholeLayers(const PruneUnits& units,
                    const std::vector<double>& layer_kl, const UnitSet& gone);

}  // namespace headcount
