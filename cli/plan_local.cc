#include "cli/plan_local.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/human.h"
#include "heads/even_mask.h"
#include "heads/head_layout.h"
#include "heads/head_shards.h"
#include "model/model_cost.h"
#include "server/capacity.h"
#include "server/config.h"
#include "server/model_setup.h"

namespace headcount {
namespace {

// What is left of the GPU's memory; or what `serve` takes unless it is told.
int64_t PoolBytesFor(const PlanSettings& settings, int64_t weight_bytes) {
  if (settings.kv_pool_bytes > 0) return settings.kv_pool_bytes;
  if (!settings.gpu) {
    return EngineOptionsOf(DefaultServerConfig()).kv_pool_bytes;
  }
  const auto used = static_cast<int64_t>(
      static_cast<double>(settings.gpu->memory_bytes) * kUsedPart);
  return std::max<int64_t>(used - weight_bytes - kOverheadBytes, 0);
}

absl::StatusOr<HeadLayout> LayoutOf(const ModelShape& shape,
                                    const PlanSettings& settings,
                                    const HeadMask& mask) {
  HeadLayoutSpec spec{.layers = shape.heads,
                      .head_dim = shape.head_dim,
                      .mask = mask,
                      .kv_dtype = settings.kv_dtype,
                      .kv_head_rules = settings.kv_head_rules};
  for (const auto& [layer, heads] : shape.pruned_heads.pruned) {
    spec.mask.pruned[layer].insert(heads.begin(), heads.end());
  }
  return HeadLayout::Create(spec);
}

// What one of `gpus` has of all that is not a head.
ModelShape ShardOf(ModelShape shape, int gpus) {
  for (int32_t& width : shape.ffn) width = (width + gpus - 1) / gpus;
  shape.vocab = (shape.vocab + gpus - 1) / gpus;
  return shape;
}

absl::StatusOr<v1::CapacityPlan> PlanOneGpu(const ModelShape& shape,
                                            const PlanSettings& settings,
                                            const HeadMask& mask) {
  const absl::StatusOr<HeadLayout> layout = LayoutOf(shape, settings, mask);
  if (!layout.ok()) return layout.status();
  const int64_t parameters = Parameters(shape, *layout);
  const WeightCost weights = {
      .parameters = parameters,
      .bytes = WeightBytes(parameters,
                           settings.weight_type.value_or(shape.weight_type))};
  absl::StatusOr<v1::CapacityPlan> plan = DescribeCapacity(
      shape, *layout, weights,
      {.pool_bytes = PoolBytesFor(settings, weights.bytes),
       .context_tokens = settings.context_tokens == 0 ? shape.max_context
                                                      : settings.context_tokens,
       .watermark = settings.watermark,
       .step_tokens = settings.step_tokens});
  if (plan.ok())
    plan->set_sequences_scheduled(MaxRunning(settings.step_tokens));
  return plan;
}

// The first needs more memory.
bool IsTighter(const v1::CapacityPlan& a, const v1::CapacityPlan& b) {
  if (a.sequences_admitted() != b.sequences_admitted()) {
    return a.sequences_admitted() < b.sequences_admitted();
  }
  return a.weight_bytes() + a.sequence_bytes() >
         b.weight_bytes() + b.sequence_bytes();
}

}  // namespace

absl::StatusOr<v1::CapacityPlan> PlanLocally(const ModelShape& shape,
                                             const PlanSettings& settings,
                                             const HeadMask& mask) {
  if (settings.context_tokens > shape.max_context) {
    return absl::InvalidArgumentError(
        absl::StrCat("--context: ", settings.context_tokens,
                     " tokens are over the model's ", shape.max_context));
  }
  if (settings.gpus == 1) return PlanOneGpu(shape, settings, mask);
  const absl::StatusOr<HeadLayout> layout = LayoutOf(shape, settings, mask);
  if (!layout.ok()) return layout.status();
  const ModelShape shard = ShardOf(shape, settings.gpus);
  std::optional<v1::CapacityPlan> tightest;
  for (const HeadMask& others : DealHeads(*layout, settings.gpus)) {
    absl::StatusOr<v1::CapacityPlan> plan = PlanOneGpu(shard, settings, others);
    if (!plan.ok()) return plan.status();
    if (!tightest || IsTighter(*plan, *tightest)) tightest = *std::move(plan);
  }
  return *std::move(tightest);
}

absl::StatusOr<HeadsFile> ReadMask(const std::string& path,
                                   const ModelShape& shape) {
  ModelConfig config;
  config.architecture = shape.architecture;
  config.layers = static_cast<int32_t>(shape.layers);
  config.head_dim = shape.head_dim;
  config.heads = shape.heads;
  return ReadHeadsFile(path, config);
}

absl::StatusOr<std::vector<SweepLine>> Sweep(const ModelShape& shape,
                                             PlanSettings settings) {
  constexpr int kSteps = 10;
  std::vector<SweepLine> lines;
  for (const KvDtype dtype :
       {KvDtype::kF16, KvDtype::kFp8E4m3, KvDtype::kInt8, KvDtype::kInt4}) {
    SweepLine& line = lines.emplace_back();
    line.dtype = dtype;
    settings.kv_dtype = dtype;
    for (int step = kSteps; step > 0; --step) {
      const double kept = static_cast<double>(step) / kSteps;
      absl::StatusOr<v1::CapacityPlan> plan =
          PlanLocally(shape, settings, EvenMask(shape.heads, kept));
      if (!plan.ok()) return plan.status();
      line.points.push_back({kept, *std::move(plan)});
    }
  }
  return lines;
}

}  // namespace headcount
