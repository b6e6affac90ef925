#include "export/tensor_plan.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "export/sliced_tensor.h"
#include "model/find_weight.h"
#include "model/head_rows.h"
#include "model/stored_heads.h"
#include "model/weight_names.h"

namespace headcount {
namespace {

constexpr char kWeight[] = ".weight";
constexpr char kBias[] = ".bias";

// Once only. The first error sticks.
class TensorPlanner {
 public:
  TensorPlanner(const PrunedCheckpoint& source, const TensorTarget& target)
      : source_(source),
        target_(target),
        from_(WeightNamesOf(source.config.naming)),
        to_(WeightNamesOf(target.naming)) {}

  absl::StatusOr<TensorPlan> Plan();

 private:
  using Name = const char* WeightNames::*;

  // Names of the layer that is planned; of none before and after the layers.
  std::string From(Name name, const char* suffix) const {
    return absl::StrCat(from_prefix_, from_.*name, suffix);
  }
  std::string To(Name name, const char* suffix) const {
    return absl::StrCat(to_prefix_, to_.*name, suffix);
  }

  void PlanAttention(size_t layer);
  void PlanAttentionOut(size_t layer, const std::vector<int>& heads, int64_t q);
  void PlanOutBias(size_t layer, bool required);
  void PlanFeedForward(int64_t ffn);
  void PlanRest();

  // The tensor of that name, checked; null after an error.
  const TensorView* Find(Name name, const char* suffix,
                         const std::vector<int64_t>& shape);
  void Whole(Name name, const char* suffix, const std::vector<int64_t>& shape);
  void Rows(Name name, const char* suffix, const std::vector<int64_t>& shape,
            const std::vector<Run>& rows);
  void Zeros(Name name, int64_t size);
  void Add(SlicedTensor tensor);

  const PrunedCheckpoint& source_;
  const TensorTarget& target_;
  const WeightNames& from_;
  const WeightNames& to_;

  TensorPlan plan_;
  absl::Status status_;
  std::string from_prefix_;
  std::string to_prefix_;
  absl::flat_hash_set<std::string> done_;  // names of the source
};

absl::StatusOr<TensorPlan> TensorPlanner::Plan() {
  const ModelConfig& config = source_.config;
  const std::vector<int64_t> vocab_by_hidden = {config.vocab, config.hidden};
  Whole(&WeightNames::embedding, kWeight, vocab_by_hidden);
  for (size_t layer = 0; layer < config.heads.size() && status_.ok(); ++layer) {
    from_prefix_ = absl::StrCat(from_.layers, layer, ".");
    to_prefix_ = absl::StrCat(to_.layers, layer, ".");
    PlanAttention(layer);
    PlanFeedForward(config.ffn[layer]);
  }
  from_prefix_.clear();
  to_prefix_.clear();
  Whole(&WeightNames::final_norm, kWeight, {config.hidden});
  if (!config.tied_output) {
    Whole(&WeightNames::output, kWeight, vocab_by_hidden);
  }
  if (!status_.ok()) return status_;
  PlanRest();
  return std::move(plan_);
}

void TensorPlanner::PlanAttention(size_t layer) {
  const ModelConfig& config = source_.config;
  const LayerHeads& heads = source_.layout.layers()[layer];
  for (const Name name :
       {&WeightNames::attention_norm, &WeightNames::query, &WeightNames::key,
        &WeightNames::value, &WeightNames::query_norm, &WeightNames::key_norm,
        &WeightNames::attention_out}) {
    done_.insert(From(name, kWeight));
    done_.insert(From(name, kBias));
  }
  if (!heads.has_attention()) {
    PlanOutBias(layer, /*required=*/false);
    return;
  }
  const StoredHeads stored = StoredHeadsOf(config, source_.checkpoint, layer);
  const auto [q_heads, kv_heads] = KeptIn(stored, heads);
  const auto rotated_runs =
      target_.paired_rows && !config.paired_rows ? PairingRunsOf : RunsOf;
  const std::vector<Run> q_rows = rotated_runs(q_heads, config.head_dim);
  const std::vector<Run> k_rows = rotated_runs(kv_heads, config.head_dim);
  const std::vector<Run> v_rows = RunsOf(kv_heads, config.head_dim);
  const int64_t hidden = config.hidden;
  const auto q =
      static_cast<int64_t>(stored.query_heads.size()) * config.head_dim;
  const auto kv =
      static_cast<int64_t>(stored.kv_heads.size()) * config.head_dim;

  Whole(&WeightNames::attention_norm, kWeight, {hidden});
  Rows(&WeightNames::query, kWeight, {q, hidden}, q_rows);
  Rows(&WeightNames::key, kWeight, {kv, hidden}, k_rows);
  Rows(&WeightNames::value, kWeight, {kv, hidden}, v_rows);
  if (config.qkv_bias) {
    Rows(&WeightNames::query, kBias, {q}, q_rows);
    Rows(&WeightNames::key, kBias, {kv}, k_rows);
    Rows(&WeightNames::value, kBias, {kv}, v_rows);
  } else if (target_.qkv_bias) {
    const auto width = [&](const std::vector<int>& kept) {
      return static_cast<int64_t>(kept.size()) * config.head_dim;
    };
    Zeros(&WeightNames::query, width(q_heads));
    Zeros(&WeightNames::key, width(kv_heads));
    Zeros(&WeightNames::value, width(kv_heads));
  }
  if (config.qk_norm) {
    Whole(&WeightNames::query_norm, kWeight, {config.head_dim});
    Whole(&WeightNames::key_norm, kWeight, {config.head_dim});
  }
  PlanAttentionOut(layer, q_heads, q);
  PlanOutBias(layer, /*required=*/true);
}

// `heads`: those kept, by position in the file, of whose q columns they are.
void TensorPlanner::PlanAttentionOut(size_t layer,
                                     const std::vector<int>& heads, int64_t q) {
  const TensorView* out =
      Find(&WeightNames::attention_out, kWeight, {source_.config.hidden, q});
  if (out == nullptr) return;
  const std::string name = To(&WeightNames::attention_out, kWeight);
  const TensorView* repaired =
      source_.repair ? source_.repair->weight(layer) : nullptr;
  if (repaired != nullptr) {
    Add(WholeTensor(name, *repaired));
    return;
  }
  SlicedTensor sliced = WholeTensor(name, *out);
  sliced.columns = RunsOf(heads, source_.config.head_dim);
  if (!AreWholeBlocks(sliced.columns, out->dtype)) {
    sliced.dtype = ElementType::kF16;
    plan_.notes.push_back(absl::StrCat(
        "tensor ", name, " is written as F16: heads of ",
        source_.config.head_dim, " columns cut through the blocks of ",
        BlockOf(out->dtype).elements, " of ",
        std::string(ElementTypeName(out->dtype))));
  }
  Add(std::move(sliced));
}

// required: of a layer with heads, which has one where the configuration says
// that all have.
void TensorPlanner::PlanOutBias(size_t layer, bool required) {
  const std::string from = From(&WeightNames::attention_out, kBias);
  const int64_t hidden = source_.config.hidden;
  const TensorView* bias =
      source_.repair ? source_.repair->bias(layer) : nullptr;
  if (bias == nullptr && source_.config.attention_out_bias &&
      (required || source_.checkpoint.Find(from) != nullptr)) {
    bias = Find(&WeightNames::attention_out, kBias, {hidden});
    if (bias == nullptr) return;
  }
  if (bias != nullptr) {
    Add(WholeTensor(To(&WeightNames::attention_out, kBias), *bias));
  } else if (required && target_.out_bias) {
    Zeros(&WeightNames::attention_out, hidden);
  }
}

void TensorPlanner::PlanFeedForward(int64_t ffn) {
  if (ffn == 0) return;
  const int64_t hidden = source_.config.hidden;
  Whole(&WeightNames::ffn_norm, kWeight, {hidden});
  Whole(&WeightNames::gate, kWeight, {ffn, hidden});
  Whole(&WeightNames::up, kWeight, {ffn, hidden});
  Whole(&WeightNames::down, kWeight, {hidden, ffn});
  if (!source_.config.mlp_bias) return;
  Whole(&WeightNames::gate, kBias, {ffn});
  Whole(&WeightNames::up, kBias, {ffn});
  Whole(&WeightNames::down, kBias, {hidden});
}

// What the configuration does not imply: kept where names mean the same.
void TensorPlanner::PlanRest() {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : source_.checkpoint.tensors()) {
    if (!done_.contains(name)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const TensorView& tensor = *source_.checkpoint.Find(name);
    const bool writable = !tensor.shape.empty() && tensor.shape.size() <= 2;
    if (source_.config.naming == target_.naming && writable) {
      Add(WholeTensor(name, tensor));
    } else if (!absl::EndsWith(name, ".rotary_emb.inv_freq")) {
      plan_.notes.push_back(absl::StrCat(
          "tensor ", name, " is left out: this model does not need it"));
    }
  }
  for (const auto& [name, tensor] : source_.checkpoint.unread()) {
    plan_.notes.push_back(
        absl::StrCat("tensor ", name, " is left out: its type, ",
                     std::string(tensor.type_name), ", is not read"));
  }
}

const TensorView* TensorPlanner::Find(Name name, const char* suffix,
                                      const std::vector<int64_t>& shape) {
  if (!status_.ok()) return nullptr;
  const std::string from = From(name, suffix);
  done_.insert(from);
  const absl::StatusOr<const TensorView*> found =
      FindWeight(source_.checkpoint, from_, from, shape);
  if (!found.ok()) status_ = found.status();
  return found.ok() ? *found : nullptr;
}

void TensorPlanner::Whole(Name name, const char* suffix,
                          const std::vector<int64_t>& shape) {
  Rows(name, suffix, shape, {{0, shape[0]}});
}

void TensorPlanner::Rows(Name name, const char* suffix,
                         const std::vector<int64_t>& shape,
                         const std::vector<Run>& rows) {
  const TensorView* tensor = Find(name, suffix, shape);
  if (tensor == nullptr) return;
  SlicedTensor sliced = WholeTensor(To(name, suffix), *tensor);
  sliced.rows = rows;
  Add(std::move(sliced));
}

void TensorPlanner::Zeros(Name name, int64_t size) {
  Add({.name = To(name, kBias), .rows = {{0, size}}});
}

void TensorPlanner::Add(SlicedTensor tensor) {
  if (tensor.columns.empty() && target_.float_vectors) {
    tensor.dtype = ElementType::kF32;
  }
  plan_.tensors.push_back(ToWrite(tensor));
}

}  // namespace

absl::StatusOr<TensorPlan> PlanTensors(const PrunedCheckpoint& source,
                                       const TensorTarget& target) {
  return TensorPlanner(source, target).Plan();
}

bool RepairAddsBias(const PrunedCheckpoint& source) {
  if (!source.repair || source.config.attention_out_bias) return false;
  for (size_t layer = 0; layer < source.config.heads.size(); ++layer) {
    if (source.repair->bias(layer) != nullptr) return true;
  }
  return false;
}

}  // namespace headcount
