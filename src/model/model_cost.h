// What the weights of a model and the arithmetic of its tokens come to, of the
// heads that a layout keeps. Exact: counts of elements and of multiplications,
// from shapes alone.
#pragma once

#include <cstdint>

#include "base/element_type.h"
#include "heads/head_layout.h"
#include "model/model_shape.h"

namespace headcount {

// Elements of all weights: what is loaded for `layout`, which is one of
// `shape`. d: hidden, D: head_dim, f: width of the MLP, V: vocabulary; a layer
// has q query and k KV heads:
//
//   V d (twice if the output is not tied) + other_parameters + a norm
//   + for each layer: (2 q + 2 k) d D, biases (q + 2 k) D and d,
//                     3 d f (2 d f if not gated), biases 2 f and d (f and d),
//                     a norm of d before each of the two
int64_t Parameters(const ModelShape& shape, const HeadLayout& layout);

// Bytes of `parameters` elements stored as `type`, blocks in proportion.
int64_t WeightBytes(int64_t parameters, ElementType type);

// Floating-point operations, two for a multiplication and its addition.
struct TokenFlops {
  int64_t projections = 0;  // 4 d D for each query and each KV head
  int64_t attention = 0;    // 4 D for each query head and token it attends to
  int64_t mlp = 0;          // 6 d f, or 4 d f
  int64_t output = 0;       // 2 d V; none in an encoder

  int64_t total() const { return projections + attention + mlp + output; }
};

// Of one token that attends to `context_tokens`, fewer in a window.
TokenFlops FlopsPerToken(const ModelShape& shape, const HeadLayout& layout,
                         int64_t context_tokens);

// Of all tokens of a prompt of `context_tokens`: a decoder's attend to those up
// to themselves, an encoder's to all; logits are of the last one only.
double PrefillFlops(const ModelShape& shape, const HeadLayout& layout,
                    int64_t context_tokens);

// KV bytes that one token reads which attends to `context_tokens`, fewer in a
// window. 0 of an encoder.
int64_t AttendedBytes(const HeadLayout& layout, int64_t context_tokens);

}  // namespace headcount
