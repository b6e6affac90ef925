#include "prune/output_refit.h"

#include "Eigen/Cholesky"
#include "Eigen/Core"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace headcount {
namespace {

constexpr double kRidge = 1e-2;

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;
template <typename T>
using RowMajor =
    Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Indices = std::vector<Index>;

struct Sides {
  Indices stay;
  Indices go;
};

Sides SidesOf(const std::vector<bool>& kept) {
  Sides sides;
  for (size_t i = 0; i < kept.size(); ++i) {
    (kept[i] ? sides.stay : sides.go).push_back(static_cast<Index>(i));
  }
  return sides;
}

// D of the header, [hidden, stay].
absl::StatusOr<MatrixXd> Change(const MatrixXd& weight,
                                const MatrixXd& covariance,
                                const Sides& sides) {
  const auto stay = static_cast<Index>(sides.stay.size());
  MatrixXd system = covariance(sides.stay, sides.stay);
  const double lambda = kRidge * system.diagonal().mean();
  // Heads that always put out the same stand in for others by their bias only.
  if (lambda == 0) return MatrixXd(MatrixXd::Zero(weight.rows(), stay));
  system.diagonal().array() += lambda;
  const Eigen::LLT<MatrixXd> cholesky(system);
  if (cholesky.info() != Eigen::Success) {
    return absl::InvalidArgumentError("the Gram matrix is none");
  }
  // [stay, go]; both factors are symmetric.
  const MatrixXd solved = cholesky.solve(covariance(sides.stay, sides.go));
  return MatrixXd(weight(Eigen::all, sides.go) * solved.transpose());
}

std::vector<float> Floats(const MatrixXd& values) {
  std::vector<float> floats(static_cast<size_t>(values.size()));
  Eigen::Map<RowMajor<float>>(floats.data(), values.rows(), values.cols()) =
      values.cast<float>();
  return floats;
}

}  // namespace

void Merge(const HeadMoments& more, HeadMoments* moments) {
  if (more.tokens == 0) return;
  if (moments->tokens == 0) {
    *moments = more;
    return;
  }
  CHECK(more.mean.size() == moments->mean.size() &&
        more.second.size() == moments->second.size());
  const auto count = static_cast<double>(moments->tokens + more.tokens);
  const double share = static_cast<double>(more.tokens) / count;
  const auto mix = [share](const std::vector<double>& from,
                           std::vector<double>* to) {
    for (size_t i = 0; i < from.size(); ++i) {
      (*to)[i] += share * (from[i] - (*to)[i]);
    }
  };
  mix(more.mean, &moments->mean);
  mix(more.second, &moments->second);
  moments->tokens += more.tokens;
}

absl::StatusOr<OutputProjection> RefitOutput(const OutputProjection& dense,
                                             const HeadMoments& moments,
                                             const std::vector<bool>& kept) {
  const auto width = static_cast<Index>(kept.size());
  const auto hidden = static_cast<Index>(dense.hidden);
  if (moments.tokens <= 0) {
    return absl::FailedPreconditionError("no token was counted");
  }
  CHECK(moments.mean.size() == kept.size() &&
        moments.second.size() == kept.size() * kept.size() &&
        static_cast<Index>(dense.weight.size()) == hidden * width);
  const MatrixXd weight =
      Eigen::Map<const RowMajor<float>>(dense.weight.data(), hidden, width)
          .cast<double>();
  const VectorXd mean = Eigen::Map<const VectorXd>(moments.mean.data(), width);
  // Symmetric, so that the order of its elements does not matter.
  MatrixXd covariance =
      Eigen::Map<const MatrixXd>(moments.second.data(), width, width);
  covariance -= mean * mean.transpose();
  if (!covariance.allFinite() || !mean.allFinite()) {
    return absl::InvalidArgumentError(
        "the statistics have elements that are no numbers");
  }

  const Sides sides = SidesOf(kept);
  MatrixXd refit = weight(Eigen::all, sides.stay);
  if (!sides.stay.empty() && !sides.go.empty()) {
    const absl::StatusOr<MatrixXd> change = Change(weight, covariance, sides);
    if (!change.ok()) return change.status();
    refit += *change;
  }
  VectorXd bias = weight * mean - refit * mean(sides.stay);
  if (!dense.bias.empty()) {
    bias += Eigen::Map<const Eigen::VectorXf>(dense.bias.data(), hidden)
                .cast<double>();
  }
  return OutputProjection{
      .hidden = dense.hidden, .weight = Floats(refit), .bias = Floats(bias)};
}

}  // namespace headcount
