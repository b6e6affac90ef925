#include "server/capacity.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "base/check.h"
#include "heads/kv_dtype.h"
#include "model/model_cost.h"
#include "server/errors.h"
#include "server/field_checks.h"
#include "server/limits.h"

namespace headcount {
namespace {

void DescribePoolPlan(const PoolPlan& plan, v1::CapacityPlan* out) {
  out->set_kv_bytes_per_token(plan.kv_bytes_per_token);
  out->set_kv_pool_bytes(plan.pool_bytes);
  out->set_slab_bytes(plan.slab_bytes);
  out->set_slabs(plan.slabs);
  out->set_slab_end_bytes(plan.slab_end_bytes);
  out->set_watermark_bytes(plan.watermark_bytes);
  out->set_sequence_bytes(plan.sequence_bytes);
  out->set_sequences_admitted(plan.admitted);
  out->set_sequences_held(plan.held);
  out->set_sequences_undivided(plan.undivided);
  for (const KvGroupPlan& group : plan.groups) {
    v1::KvGroupPlan& entry = *out->add_groups();
    entry.set_window(group.retention.window);
    entry.set_sink(group.retention.sink);
    entry.set_kv_heads(group.kv_heads);
    entry.set_block_bytes(group.block_bytes);
    entry.set_blocks_per_slab(group.blocks_per_slab);
    entry.set_sequence_blocks(group.sequence_blocks);
    entry.set_admission_blocks(group.admission_blocks);
  }
}

// Of all KV heads, or "mixed"; "" where there are none.
std::string DtypeOf(const HeadLayout& layout) {
  std::set<KvDtype> dtypes;
  for (const LayerHeads& layer : layout.layers()) {
    for (const KvHead& head : layer.kv_heads) dtypes.insert(head.dtype);
  }
  if (dtypes.empty()) return "";
  return dtypes.size() == 1 ? std::string(KvDtypeName(*dtypes.begin()))
                            : "mixed";
}

// In proportion to the weights as they are loaded.
WeightCost WeightsOf(const ServedModel& model, const HeadLayout& layout) {
  const int64_t loaded = Parameters(model.shape, *model.weight_heads);
  const int64_t parameters = Parameters(model.shape, layout);
  return {.parameters = parameters,
          .bytes = static_cast<int64_t>(
              static_cast<double>(model.weight_bytes) *
              static_cast<double>(parameters) / static_cast<double>(loaded))};
}

absl::StatusOr<HeadLayout> LayoutFor(const ServedModel& model,
                                     const v1::PlanCapacityRequest& request) {
  HeadLayoutSpec spec{.layers = model.shape.heads,
                      .head_dim = model.shape.head_dim,
                      .mask = MaskOf(*model.heads),
                      .kv_head_rules = RulesOf(*model.heads)};
  if (!request.kv_dtype().empty()) {
    const absl::StatusOr<KvDtype> dtype = ParseKvDtype(request.kv_dtype());
    if (!dtype.ok()) {
      return FieldError("kv_dtype", std::string(dtype.status().message()));
    }
    spec.kv_dtype = *dtype;
    for (auto& [layer, heads] : spec.kv_head_rules) {
      for (auto& [head, rule] : heads) rule.dtype.reset();
    }
  }
  for (const auto& [layer, heads] : request.pruned()) {
    spec.mask.pruned[layer].insert(heads.query_heads().begin(),
                                   heads.query_heads().end());
  }
  absl::StatusOr<HeadLayout> layout = HeadLayout::Create(spec);
  if (!layout.ok()) {
    return FieldError("pruned", std::string(layout.status().message()));
  }
  return layout;
}

}  // namespace

absl::StatusOr<v1::CapacityPlan> DescribeCapacity(const ModelShape& shape,
                                                  const HeadLayout& layout,
                                                  const WeightCost& weights,
                                                  const PoolPlanSpec& pool) {
  const int64_t context = pool.context_tokens;
  v1::CapacityPlan out;
  out.set_architecture(shape.architecture);
  out.set_context_tokens(context);
  out.set_query_heads(layout.query_heads());
  out.set_kv_heads(layout.kv_heads());
  out.set_parameters(weights.parameters);
  out.set_weight_bytes(weights.bytes);
  const TokenFlops flops = FlopsPerToken(shape, layout, context);
  out.set_projection_flops(flops.projections);
  out.set_attention_flops(flops.attention);
  out.set_mlp_flops(flops.mlp);
  out.set_output_flops(flops.output);
  out.set_prefill_flops(PrefillFlops(shape, layout, context));
  if (!shape.decoder) {
    out.set_kv_pool_bytes(pool.pool_bytes);
    out.set_sequences_admitted(kNoLimit);
    out.set_sequences_held(kNoLimit);
    out.set_sequences_undivided(kNoLimit);
    return out;
  }
  out.set_kv_dtype(DtypeOf(layout));
  const absl::StatusOr<PoolPlan> plan = PlanPool(layout, pool);
  if (!plan.ok()) return plan.status();
  DescribePoolPlan(*plan, &out);
  out.set_attended_bytes(AttendedBytes(layout, context));
  return out;
}

absl::Status PlanServedModel(const ServedModel& model,
                             const EngineOptions& options,
                             const v1::PlanCapacityRequest& request,
                             v1::PlanCapacityResponse* response) {
  CHECK(model.heads != nullptr && model.weight_heads != nullptr);
  absl::Status status =
      FirstError({CheckRange("context_tokens", request.context_tokens(), 0,
                             model.max_context),
                  CheckRange("kv_pool_bytes", request.kv_pool_bytes(),
                             int64_t{0}, kMaxPlannedPoolBytes)});
  if (!status.ok()) return status;
  const absl::StatusOr<HeadLayout> planned = LayoutFor(model, request);
  if (!planned.ok()) return planned.status();
  const absl::StatusOr<HeadLayout> dense = HeadLayout::Create(
      {.layers = model.shape.heads, .head_dim = model.shape.head_dim});
  CHECK(dense.ok()) << "the loaded one is: " << dense.status();

  const PoolPlanSpec pool = {.pool_bytes = request.kv_pool_bytes() == 0
                                               ? options.kv_pool_bytes
                                               : request.kv_pool_bytes(),
                             .context_tokens = request.context_tokens() == 0
                                                   ? model.max_context
                                                   : request.context_tokens(),
                             .watermark = options.watermark,
                             .step_tokens = options.step_tokens};
  // A variant's mask leaves the weights of its base as they are.
  const bool own_weights = model.base.empty();
  for (const bool all : {true, false}) {
    const HeadLayout& layout = all ? *dense : *planned;
    absl::StatusOr<v1::CapacityPlan> plan = DescribeCapacity(
        model.shape, layout,
        WeightsOf(model, own_weights || all ? layout : *model.weight_heads),
        pool);
    if (!plan.ok()) return plan.status();
    plan->set_sequences_scheduled(MaxRunning(options.step_tokens));
    *(all ? response->mutable_all_heads() : response->mutable_plan()) =
        *std::move(plan);
  }
  const int32_t most = model.description.max_concurrent();
  if (most > 0) {
    v1::CapacityPlan& plan = *response->mutable_plan();
    plan.set_sequences_scheduled(
        std::min<int64_t>(plan.sequences_scheduled(), most));
  }
  return absl::OkStatus();
}

}  // namespace headcount
