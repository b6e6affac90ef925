#include "backend/cuda/step_tables.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/cuda/attention_items.h"
#include "backend/cuda/kv_write_work.h"
#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount::cuda {
namespace {

int WidestGroup(const LayerHeads& heads, KvDtype dtype) {
  int widest = 0;
  for (const KvHead& head : heads.kv_heads) {
    if (head.dtype == dtype) widest = std::max(widest, head.num_queries);
  }
  return widest;
}

// Whether plans made for one serve the other.
bool CutAlike(const LayerHeads& a, const LayerHeads& b) {
  return std::equal(a.kv_heads.begin(), a.kv_heads.end(), b.kv_heads.begin(),
                    b.kv_heads.end(), [](const KvHead& x, const KvHead& y) {
                      return x.num_queries == y.num_queries &&
                             x.group == y.group && x.retention == y.retention;
                    });
}

// What a layer launches: one of each variant and dtype, before any plan.
struct Launches {
  std::vector<LayerHeads> cut;
  std::vector<AttentionLaunch> launches;
};

Launches LaunchesOf(const AttentionLayer& layer) {
  Launches out;
  for (size_t v = 0; v < layer.variants.size(); ++v) {
    const VariantLayer& variant = layer.variants[v];
    std::set<KvDtype> dtypes;
    for (const KvHead& head : variant.heads->kv_heads) {
      dtypes.insert(head.dtype);
    }
    for (const KvDtype dtype : dtypes) {
      AttentionLaunch& launch = out.launches.emplace_back();
      launch.variant = static_cast<int32_t>(v);
      launch.dtype = dtype;
      launch.decode = FindDecodeKernel(dtype, layer.head_dim,
                                       WidestGroup(*variant.heads, dtype));
      launch.prefill = FindPrefillKernel(dtype, layer.head_dim);
      CHECK(launch.decode.kernel != nullptr && launch.prefill.kernel != nullptr)
          << "CheckHeads comes first";
      out.cut.push_back(CutGroups(*variant.heads, variant.query_slots, dtype,
                                  launch.decode.max_queries));
    }
  }
  return out;
}

class TableMaker {
 public:
  TableMaker(const StepInputs& inputs, int32_t workers, StepUpload* upload,
             StepTables* tables)
      : inputs_(inputs),
        workers_(workers),
        upload_(*upload),
        tables_(*tables) {}

  void Make() {
    tables_.runs.clear();
    tables_.shapes.clear();
    tables_.layers.clear();
    tables_.num_partials = 0;
    tables_.num_counters = 0;
    SplitSequences();
    MakeRuns();
    for (const AttentionLayer& layer : inputs_.layers) AddLayer(layer);
  }

 private:
  // The sequences of each variant.
  void SplitSequences() {
    for (const StepSequence& sequence : inputs_.sequences) {
      const auto variant = static_cast<size_t>(sequence.variant);
      if (by_variant_.size() <= variant) by_variant_.resize(variant + 1);
      by_variant_[variant].push_back(sequence);
    }
  }

  void MakeRuns() {
    const auto all = inputs_.sequences;
    for (size_t s = 0; s < all.size();) {
      size_t end = s;
      while (end < all.size() && all[end].variant == all[s].variant) ++end;
      AddRun(all.subspan(s, end - s));
      s = end;
    }
  }

  void AddRun(absl::Span<const StepSequence> sequences) {
    RowRun run{.variant = sequences.front().variant,
               .first_row = sequences.front().first_row};
    std::vector<int64_t> row_blocks;
    const size_t groups = sequences.front().block_begin.size();
    for (size_t group = 0; group < groups; ++group) {
      run.num_rows = 0;
      for (const StepSequence& sequence : sequences) {
        for (int32_t i = 0; i < sequence.num_rows; ++i) {
          const int64_t block = (sequence.past + i) / kBlockTokens;
          row_blocks.push_back(inputs_.block_offsets[static_cast<size_t>(
              sequence.block_begin[group] + block)]);
        }
        run.num_rows += sequence.num_rows;
      }
    }
    run.row_blocks = upload_.Add(row_blocks);
    // A variant without groups writes no pages.
    if (groups > 0) tables_.runs.push_back(run);
  }

  void AddLayer(const AttentionLayer& layer) {
    Launches launches = LaunchesOf(layer);
    LayerTables& made = tables_.layers.emplace_back();
    made.shape = ShapeFor(layer.layer_class, launches);
    for (size_t i = 0; i < launches.launches.size(); ++i) {
      const VariantLayer& variant =
          layer.variants[static_cast<size_t>(launches.launches[i].variant)];
      made.heads.push_back(upload_.Add(MakeAttentionHeads(
          *variant.heads, launches.cut[i], variant.geometries, layer.layer)));
    }
    for (const VariantLayer& variant : layer.variants) {
      made.write_heads.push_back(upload_.Add(WriteHeads(layer, variant)));
      made.covers_out =
          made.covers_out &&
          static_cast<int>(variant.query_slots.size()) == layer.query_heads;
    }
  }

  size_t ShapeFor(int layer_class, const Launches& launches) {
    const auto serves = [&](const LayerShapeTables& shape) {
      return shape.layer_class == layer_class &&
             std::equal(shape.cut.begin(), shape.cut.end(),
                        launches.cut.begin(), launches.cut.end(), CutAlike);
    };
    const auto found =
        std::find_if(tables_.shapes.begin(), tables_.shapes.end(), serves);
    const auto index = static_cast<size_t>(found - tables_.shapes.begin());
    if (found != tables_.shapes.end()) return index;
    LayerShapeTables& shape = tables_.shapes.emplace_back();
    shape.layer_class = layer_class;
    shape.cut = launches.cut;
    shape.launches = launches.launches;
    for (size_t i = 0; i < shape.launches.size(); ++i) {
      AddPlan(shape.cut[i], &shape.launches[i]);
    }
    return index;
  }

  void AddPlan(const LayerHeads& cut, AttentionLaunch* launch) {
    const std::vector<StepSequence>& sequences =
        by_variant_[static_cast<size_t>(launch->variant)];
    PlanBalanced(
        cut, sequences,
        {.workers = workers_, .tile_queries = launch->prefill.max_queries},
        &plan_);
    if (plan_.decode.empty()) launch->decode.kernel = nullptr;
    if (plan_.tiles.empty()) launch->prefill.kernel = nullptr;
    launch->tiles = static_cast<int32_t>(plan_.tiles.size());
    launch->decode_items = upload_.Add(
        MakeAttentionItems(cut, sequences, plan_.decode, plan_.merges));
    launch->worker_begin = upload_.Add(plan_.worker_begin);
    launch->tile_items = upload_.Add(
        MakeAttentionItems(cut, sequences, plan_.tiles, plan_.merges));
    tables_.num_partials = std::max(tables_.num_partials, plan_.num_partials);
    tables_.num_counters = std::max(tables_.num_counters,
                                    static_cast<int64_t>(plan_.merges.size()));
  }

  // [KV head of the projection]; of those that the variant does not run,
  // nothing is written.
  static std::vector<KvWriteHead> WriteHeads(const AttentionLayer& layer,
                                             const VariantLayer& variant) {
    std::vector<KvWriteHead> heads(static_cast<size_t>(layer.kv_heads));
    for (KvWriteHead& head : heads) head.group = -1;
    for (size_t slot = 0; slot < variant.kv_slots.size(); ++slot) {
      const KvHead& head = variant.heads->kv_heads[slot];
      KvWriteHead& to = heads[static_cast<size_t>(variant.kv_slots[slot])];
      to.group = head.group;
      to.page = variant.geometries[static_cast<size_t>(head.group)].page(
          layer.layer, static_cast<int>(slot));
    }
    return heads;
  }

  const StepInputs& inputs_;
  const int32_t workers_;
  StepUpload& upload_;
  StepTables& tables_;
  std::vector<std::vector<StepSequence>> by_variant_;
  BalancedPlan plan_;
};

}  // namespace

absl::Status CheckHeads(int head_dim, KvDtype dtype) {
  if (FindDecodeKernel(dtype, head_dim, 1).kernel != nullptr &&
      FindPrefillKernel(dtype, head_dim).kernel != nullptr) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "there are no CUDA kernels for heads of ", head_dim, " elements in ",
      std::string(KvDtypeName(dtype)), "; serve the model with --device cpu"));
}

void MakeStepTables(const StepInputs& inputs, int32_t workers,
                    StepUpload* upload, StepTables* tables) {
  TableMaker(inputs, workers, upload, tables).Make();
}

}  // namespace headcount::cuda
