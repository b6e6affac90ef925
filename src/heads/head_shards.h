// How heads are dealt to GPUs that compute every layer together: tensor
// parallelism, Shoeybi et al. 2019 (arXiv:1909.08053), where heads differ from
// layer to layer.
#pragma once

#include <vector>

#include "heads/head_layout.h"
#include "heads/head_mask.h"

namespace headcount {

// For each of `gpus` (at least 1), what it does not hold of `layout`: a mask of
// the unpruned model, which takes out the heads of the others and those that
// `layout` has lost. A KV head stays together with the query heads that it
// serves, so no key and no value lies in two places.
//
// Layers are waited for, so each is dealt evenly: of no layer does one GPU have
// two KV heads more than another. Of two that have equally many it is the one
// with fewer query heads in the layer that gets the next, then the one with
// fewer bytes of KV in all. Deterministic.
std::vector<HeadMask> DealHeads(const HeadLayout& layout, int gpus);

}  // namespace headcount
