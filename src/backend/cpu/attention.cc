#include "backend/cpu/attention.h"

#include <algorithm>
#include <cstddef>

#include "backend/cpu/attention_walk.h"
#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/attention_walk-inl.h"
#include "hwy/highway.h"

#if HWY_ONCE
namespace headcount {
namespace {

HWY_EXPORT(JoinStates);
HWY_EXPORT(FinishState);

// Scores x elements below which one thread walks all items.
constexpr int64_t kMinParallelWork = int64_t{1} << 16;

// One layer's attention in one step.
class LayerAttention {
 public:
  LayerAttention(const AttentionOperands& operands,
                 AttentionWorkspace* workspace, ThreadPool* pool)
      : operands_(operands),
        step_(*operands.step),
        layer_(*operands.layer),
        plan_(step_.inputs.plans[static_cast<size_t>(layer_.layer_class)]),
        workspace_(*workspace),
        pool_(*pool) {
    out_stride_ = int64_t{layer_.query_heads} * layer_.head_dim;
    qkv_stride_ = out_stride_ + int64_t{2} * layer_.kv_heads * layer_.head_dim;
  }

  void Run() {
    ClearUnrun();
    const int64_t work = PrepareWorkspace();
    const auto items = static_cast<int64_t>(plan_.items.size());
    if (work < kMinParallelWork) {
      for (int64_t i = 0; i < items; ++i) RunItem(i, 0);
    } else {
      pool_.Run(items, [&](int64_t i, int worker) { RunItem(i, worker); });
    }
    pool_.Run(static_cast<int64_t>(plan_.merges.size()),
              [&](int64_t i, int /*worker*/) { RunMerge(i); });
  }

 private:
  const StepSequence& Sequence(int32_t index) const {
    return step_.inputs.sequences[static_cast<size_t>(index)];
  }
  const VariantLayer& Variant(const StepSequence& sequence) const {
    return layer_.variants[static_cast<size_t>(sequence.variant)];
  }
  // Of a work or merge item.
  template <class Item>
  const KvHead& Head(const Item& item) const {
    return Variant(Sequence(item.sequence))
        .heads->kv_heads[static_cast<size_t>(item.kv_slot)];
  }
  // Where the queries of `head` lie in the projection and in the output.
  const int* Slots(int32_t sequence, const KvHead& head) const {
    return Variant(Sequence(sequence)).query_slots.data() + head.first_query;
  }

  // Nobody else writes the output of heads that a sequence does not run.
  void ClearUnrun() {
    for (const StepSequence& sequence : step_.inputs.sequences) {
      const auto run = Variant(sequence).query_slots.size();
      if (run == static_cast<size_t>(layer_.query_heads)) continue;
      std::fill_n(operands_.out + sequence.first_row * out_stride_,
                  sequence.num_rows * out_stride_, 0.0f);
    }
  }

  // Returns the work of the plan.
  int64_t PrepareWorkspace() {
    int64_t work = 0;
    int64_t most_queries = 0;
    for (const WorkItem& item : plan_.items) {
      const int64_t queries = int64_t{item.num_rows} * Head(item).num_queries;
      most_queries = std::max(most_queries, queries);
      work += queries * (item.kv_end - item.kv_begin) * layer_.head_dim;
    }
    const int64_t state = StateSize(layer_.head_dim);
    states_offset_ = WalkScratch::Size(layer_.head_dim, plan_.chunk_tokens);
    const auto scratch =
        static_cast<size_t>(states_offset_ + most_queries * state);
    workspace_.scratch.resize(static_cast<size_t>(pool_.threads()));
    for (std::vector<float>& worker : workspace_.scratch) {
      if (worker.size() < scratch) worker.resize(scratch);
    }
    const auto partials = static_cast<size_t>(plan_.num_partials * state);
    if (workspace_.partials.size() < partials) {
      workspace_.partials.resize(partials);
    }
    return work;
  }

  Walk MakeWalk(const WorkItem& item) const {
    const KvHead& head = Head(item);
    const auto group = static_cast<size_t>(head.group);
    const StepSequence& sequence = Sequence(item.sequence);
    Walk walk;
    walk.head_dim = layer_.head_dim;
    walk.num_queries = head.num_queries;
    walk.num_rows = item.num_rows;
    walk.first_position = sequence.past + (item.first_row - sequence.first_row);
    walk.retention = head.retention.From(item.kv_begin);
    walk.kv_begin = item.kv_begin;
    walk.kv_end = item.kv_end;
    walk.chunk_tokens = plan_.chunk_tokens;
    walk.q = operands_.qkv + item.first_row * qkv_stride_;
    walk.q_stride = qkv_stride_;
    walk.slots = Slots(item.sequence, head);
    walk.page =
        Variant(sequence).geometries[group].page(layer_.layer, item.kv_slot);
    walk.arena = static_cast<const std::byte*>(operands_.arena);
    walk.blocks =
        step_.inputs.block_offsets.data() + sequence.block_begin[group];
    return walk;
  }

  void RunItem(int64_t index, int worker) {
    const WorkItem& item = plan_.items[static_cast<size_t>(index)];
    float* scratch = workspace_.scratch[static_cast<size_t>(worker)].data();
    float* states = scratch + states_offset_;
    if (item.partial >= 0) states = Partial(item.partial);
    const Walk walk = MakeWalk(item);
    const bool integers =
        walk.page.dtype == KvDtype::kInt8 || walk.page.dtype == KvDtype::kInt4;
    (integers ? WalkIntegerPages : WalkFloatPages)(
        walk, WalkScratch::In(scratch, plan_.chunk_tokens), states);
    if (item.partial < 0) Finish(item, states);
  }

  void RunMerge(int64_t index) {
    const MergeItem& merge = plan_.merges[static_cast<size_t>(index)];
    const int64_t queries = int64_t{merge.num_rows} * Head(merge).num_queries;
    float* states = Partial(merge.first_partial);
    for (int64_t split = 1; split < merge.num_splits; ++split) {
      for (int64_t query = 0; query < queries; ++query) {
        HWY_DYNAMIC_DISPATCH(JoinStates)
        (Partial(merge.first_partial + split * queries + query),
         layer_.head_dim, states + query * StateSize(layer_.head_dim));
      }
    }
    Finish(merge, states);
  }

  float* Partial(int64_t slot) {
    return workspace_.partials.data() + slot * StateSize(layer_.head_dim);
  }

  // Writes the output of a work or merge item.
  template <class Item>
  void Finish(const Item& item, const float* states) {
    const KvHead& head = Head(item);
    const int* const slots = Slots(item.sequence, head);
    float* out = operands_.out + item.first_row * out_stride_;
    for (int32_t row = 0; row < item.num_rows; ++row) {
      for (int query = 0; query < head.num_queries; ++query) {
        HWY_DYNAMIC_DISPATCH(FinishState)
        (states, layer_.head_dim,
         out + int64_t{slots[query]} * layer_.head_dim);
        states += StateSize(layer_.head_dim);
      }
      out += out_stride_;
    }
  }

  const AttentionOperands& operands_;
  const StepState& step_;
  const AttentionLayer& layer_;
  const AttentionPlan& plan_;
  AttentionWorkspace& workspace_;
  ThreadPool& pool_;
  int64_t out_stride_ = 0;
  int64_t qkv_stride_ = 0;
  int64_t states_offset_ = 0;
};

}  // namespace

void Attention(const AttentionOperands& operands, AttentionWorkspace* workspace,
               ThreadPool* pool) {
  const int head_dim = operands.layer->head_dim;
  CHECK(head_dim > 0 && head_dim <= kMaxHeadDim && head_dim % 8 == 0)
      << "head_dim " << head_dim;
  LayerAttention(operands, workspace, pool).Run();
}

}  // namespace headcount
#endif  // HWY_ONCE
