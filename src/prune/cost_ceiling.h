// The most that a mask can save, by arithmetic alone: printed beside every
// quality number, so that nobody expects half the time from half the heads.
#pragma once

#include <cstdint>
#include <vector>

#include "prune/prune_units.h"

namespace headcount {

// What the rest of a model costs. Weights without biases.
struct ModelWidths {
  int64_t hidden = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;         // 0: no output layer over a vocabulary
  bool gated_mlp = true;     // three matrices instead of two
  std::vector<int64_t> ffn;  // [layer] width of the MLP
};

// Floating-point operations of one token, two for each multiply-add.
struct TokenWork {
  int64_t projections = 0;  // query, key, value, output
  int64_t attention = 0;    // over the tokens before it
  int64_t mlp = 0;
  int64_t output = 0;
  int64_t total() const { return projections + attention + mlp + output; }
};

// Of a token that attends to `tokens` tokens. With d hidden and D head_dim, a
// query head costs 4 d D + 4 D tokens, a KV head 4 d D, a gated MLP 6 d f, a
// plain one 4 d f and the output 2 d vocab.
TokenWork FlopsPerToken(const PrunableModel& model, const ModelWidths& widths,
                        const std::vector<LayerDrop>& drops, int64_t tokens);

}  // namespace headcount
