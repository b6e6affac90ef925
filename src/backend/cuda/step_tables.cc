#include "backend/cuda/step_tables.h"

#include <algorithm>
#include <cstring>
#include <list>
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

// Of a launch whose kernels are those for its heads, whether they run or not.
BalancedPlanOptions PlanOptionsOf(const AttentionLaunch& launch,
                                  int32_t workers) {
  return {.workers = workers, .tile_queries = launch.prefill.max_queries};
}

// [KV head of the projection]; of those that the variant does not run,
// nothing is written.
std::vector<KvWriteHead> WriteHeads(const AttentionLayer& layer,
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

class LayerSetMaker {
 public:
  explicit LayerSetMaker(LayerSet* set) : set_(*set) {}

  void AddLayer(const AttentionLayer& layer) {
    Launches launches = LaunchesOf(layer);
    LayerTables& made = set_.layers.emplace_back();
    made.shape = ShapeFor(layer.layer_class, launches);
    for (size_t i = 0; i < launches.launches.size(); ++i) {
      const VariantLayer& variant =
          layer.variants[static_cast<size_t>(launches.launches[i].variant)];
      made.heads.push_back(Add(MakeAttentionHeads(
          *variant.heads, launches.cut[i], variant.geometries, layer.layer)));
    }
    for (const VariantLayer& variant : layer.variants) {
      made.write_heads.push_back(Add(WriteHeads(layer, variant)));
      made.covers_out =
          made.covers_out &&
          static_cast<int>(variant.query_slots.size()) == layer.query_heads;
    }
  }

 private:
  size_t ShapeFor(int layer_class, const Launches& launches) {
    const auto serves = [&](const LayerShapeTables& shape) {
      return shape.layer_class == layer_class &&
             std::equal(shape.cut.begin(), shape.cut.end(),
                        launches.cut.begin(), launches.cut.end(), CutAlike);
    };
    const auto found =
        std::find_if(set_.shapes.begin(), set_.shapes.end(), serves);
    const auto index = static_cast<size_t>(found - set_.shapes.begin());
    if (found == set_.shapes.end()) {
      set_.shapes.push_back({layer_class, launches.cut, launches.launches});
    }
    return index;
  }

  template <class T>
  int64_t Add(const std::vector<T>& table) {
    constexpr size_t kAlign = 16;
    const size_t place = set_.tables.size();
    const size_t bytes = table.size() * sizeof(T);
    set_.tables.resize(place + (bytes + kAlign - 1) / kAlign * kAlign);
    if (bytes > 0) std::memcpy(&set_.tables[place], table.data(), bytes);
    return static_cast<int64_t>(place);
  }

  LayerSet& set_;
};

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
    tables_.launches.clear();
    tables_.num_partials = 0;
    tables_.num_counters = 0;
    FindLayers();
    const LayerSet& layers = tables_.known.front();
    tables_.layer_tables = upload_.Add(layers.tables);
    SplitSequences();
    MakeRuns();
    for (const LayerShapeTables& shape : layers.shapes) {
      std::vector<AttentionLaunch>& launches =
          tables_.launches.emplace_back(shape.launches);
      for (size_t i = 0; i < launches.size(); ++i) {
        AddPlan(shape.cut[i], &launches[i]);
      }
    }
  }

 private:
  // Puts what belongs to the step's variants first in tables_.known.
  void FindLayers() {
    constexpr size_t kMostKnown = 16;
    std::list<LayerSet>& known = tables_.known;
    const auto found =
        std::find_if(known.begin(), known.end(), [&](const LayerSet& set) {
          return !set.variant_ids.empty() &&
                 inputs_.variant_ids == absl::MakeConstSpan(set.variant_ids);
        });
    if (found != known.end()) {
      known.splice(known.begin(), known, found);
      return;
    }
    if (known.size() == kMostKnown) known.pop_back();
    LayerSet& made = known.emplace_front();
    made.variant_ids.assign(inputs_.variant_ids.begin(),
                            inputs_.variant_ids.end());
    LayerSetMaker maker(&made);
    for (const AttentionLayer& layer : inputs_.layers) maker.AddLayer(layer);
  }

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

  void AddPlan(const LayerHeads& cut, AttentionLaunch* launch) {
    const std::vector<StepSequence>& sequences =
        by_variant_[static_cast<size_t>(launch->variant)];
    PlanBalanced(cut, sequences, PlanOptionsOf(*launch, workers_), &plan_);
    if (plan_.decode.empty()) launch->decode.kernel = nullptr;
    if (plan_.tiles.empty()) launch->prefill.kernel = nullptr;
    launch->tiles = static_cast<int32_t>(plan_.tiles.size());
    launch->worker_begin = upload_.Add(plan_.worker_begin);
    launch->decode_items = upload_.Add(
        MakeAttentionItems(cut, sequences, plan_.decode, plan_.merges));
    launch->tile_items = upload_.Add(
        MakeAttentionItems(cut, sequences, plan_.tiles, plan_.merges));
    tables_.num_partials = std::max(tables_.num_partials, plan_.num_partials);
    tables_.num_counters = std::max(tables_.num_counters,
                                    static_cast<int64_t>(plan_.merges.size()));
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

BalancedPlanBounds BoundStepTables(const StepLimits& limits, int32_t workers) {
  BalancedPlanBounds most;
  for (const AttentionLayer& layer : limits.layers) {
    const Launches launches = LaunchesOf(layer);
    for (size_t i = 0; i < launches.cut.size(); ++i) {
      const BalancedPlanBounds bounds =
          BoundPlans(launches.cut[i], limits.rows, limits.context,
                     PlanOptionsOf(launches.launches[i], workers));
      most.partials = std::max(most.partials, bounds.partials);
      most.merges = std::max(most.merges, bounds.merges);
    }
  }
  return most;
}

void MakeStepTables(const StepInputs& inputs, int32_t workers,
                    StepUpload* upload, StepTables* tables) {
  TableMaker(inputs, workers, upload, tables).Make();
}

}  // namespace headcount::cuda
