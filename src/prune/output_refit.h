// An output projection of attention refit for the heads that a mask keeps, so
// that they put out what all heads did, as far as they can (docs/heads.md).
//
// Of one token, the heads that ran put out o, and their projection adds
// W0 o + b0 to the residual stream. S: the columns of the heads that stay, P:
// of those that go. Wanted are W and b that
//
//   minimise E|W0 o + b0 - W o_S - b|^2 + lambda |W - W0_S|^2
//
// (least squares as in K-prune, Park et al. 2024, arXiv:2308.03449, but pulled
// towards the old weights instead of towards nothing: few tokens then change
// little). The derivative by b is 0 where b = b0 + W0 m - W m_S, with m = E o.
// That put in, only deviations c = o - m are left, and with D = W - W0_S
//
//   W0 c - W c_S = W0_P c_P - D c_S.
//
// With C = E c c^T the derivative by D is 0 where
//
//   D (C_SS + lambda I) = W0_P C_PS,
//
// which is solved by a Cholesky factorisation, in double precision. lambda is
// 0.01 times the mean of C_SS's diagonal. Without heads that stay, what is left
// is the bias b0 + W0 m.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace headcount {

// y = weight o + bias.
struct OutputProjection {
  int64_t hidden = 0;
  std::vector<float> weight = {};  // [hidden, width], row-major
  std::vector<float> bias = {};    // [hidden]; empty: none
};

// Of o, [width], over many tokens.
struct HeadMoments {
  int64_t tokens = 0;
  std::vector<double> mean = {};    // [width]
  std::vector<double> second = {};  // [width, width] mean of o o^T
};

// Adds the tokens of `more`, of the same width unless `moments` has no tokens.
void Merge(const HeadMoments& more, HeadMoments* moments);

// `kept`: [width], true for columns of heads that stay. The result has a weight
// [hidden, kept columns] and always a bias; without a column that goes, the
// weight is the one that was given. FailedPrecondition without tokens;
// InvalidArgument for moments that no numbers have, such as NaN.
absl::StatusOr<OutputProjection> RefitOutput(const OutputProjection& dense,
                                             const HeadMoments& moments,
                                             const std::vector<bool>& kept);

}  // namespace headcount
