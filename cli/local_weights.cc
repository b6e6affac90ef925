#include "cli/local_weights.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/weight_names.h"

namespace headcount {
namespace {

absl::StatusOr<const TensorView*> FindTensor(
    const LocalWeights& weights, const std::string& name,
    const std::vector<int64_t>& shape) {
  const TensorView* tensor = weights.checkpoint.Find(name);
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " is missing or cannot be read"));
  }
  if (tensor->shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", name, " has shape [", absl::StrJoin(tensor->shape, ", "),
        "], not [", absl::StrJoin(shape, ", "), "]"));
  }
  return tensor;
}

}  // namespace

absl::StatusOr<LocalWeights> ReadLocalWeights(const std::string& path) {
  absl::StatusOr<ModelConfig> config = ReadModelConfig(path);
  if (!config.ok()) return config.status();
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<std::string> sha256 = checkpoint->Sha256();
  if (!sha256.ok()) return sha256.status();
  return LocalWeights{.config = *std::move(config),
                      .checkpoint = *std::move(checkpoint),
                      .sha256 = *std::move(sha256)};
}

absl::StatusOr<OutputProjection> ReadOutputProjection(
    const LocalWeights& weights, int layer,
    const std::vector<int>& query_heads) {
  const ModelConfig& config = weights.config;
  const WeightNames& names = WeightNamesOf(config.naming);
  const std::string name =
      absl::StrCat(names.layers, layer, ".", names.attention_out);
  const int64_t dim = config.head_dim;
  const int64_t all =
      dim * config.heads[static_cast<size_t>(layer)].query_heads;
  const absl::StatusOr<const TensorView*> tensor =
      FindTensor(weights, name + ".weight", {config.hidden, all});
  if (!tensor.ok()) return tensor.status();
  const auto width = static_cast<int64_t>(query_heads.size()) * dim;
  OutputProjection projection{.hidden = config.hidden};
  projection.weight.resize(static_cast<size_t>(config.hidden * width));
  float* out = projection.weight.data();
  for (int64_t row = 0; row < config.hidden; ++row) {
    const std::byte* from =
        (*tensor)->data.data() + ElementBytes((*tensor)->dtype, row * all);
    for (const int head : query_heads) {
      Dequantize((*tensor)->dtype, from, head * dim, dim, out);
      out += dim;
    }
  }
  if (!config.attention_out_bias) return projection;
  const absl::StatusOr<const TensorView*> bias =
      FindTensor(weights, name + ".bias", {config.hidden});
  if (!bias.ok()) return bias.status();
  projection.bias.resize(static_cast<size_t>(config.hidden));
  Dequantize((*bias)->dtype, (*bias)->data.data(), 0, config.hidden,
             projection.bias.data());
  return projection;
}

}  // namespace headcount
