#include "tests/gpu/attention_world.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backend/cuda/attention_items.h"
#include "backend/cuda/kv_page.h"
#include "base/check.h"
#include "base/half.h"
#include "heads/kv_codes.h"
#include "tests/gpu/activations.h"
#include "tests/gpu/device.h"

namespace headcount::gpu {
namespace {

constexpr int kLayer = 1;  // of two: so that its pages begin further on
constexpr int kSpareBlocks = 3;

// A layout whose second layer has `groups`, made by pruning a dense one.
HeadLayout MakeLayout(const AttentionCase& attention_case) {
  const std::vector<int>& groups = attention_case.groups;
  const int largest =
      groups.empty() ? 1 : *std::max_element(groups.begin(), groups.end());
  const int kv_heads = std::max<int>(1, static_cast<int>(groups.size()));
  const LayerShape shape{.query_heads = kv_heads * largest,
                         .kv_heads = kv_heads,
                         .retention = {.window = attention_case.window,
                                       .sink = attention_case.sink}};
  HeadLayoutSpec spec{.layers = {shape, shape},
                      .head_dim = attention_case.head_dim,
                      .kv_dtype = attention_case.dtype};
  std::vector<int> pruned;
  for (int head = 0; head < shape.query_heads; ++head) {
    const auto group = static_cast<size_t>(head / largest);
    if (groups.empty() || head % largest >= groups[group]) {
      pruned.push_back(head);
    }
  }
  if (!pruned.empty()) {
    spec.mask.pruned[kLayer].insert(pruned.begin(), pruned.end());
  }
  absl::StatusOr<HeadLayout> layout = HeadLayout::Create(spec);
  CHECK(layout.ok()) << layout.status();
  return *std::move(layout);
}

// Writes one element and returns its value before the scale.
double StoreElement(KvDtype dtype, float value, int element, std::byte* to) {
  if (KvDtypeBits(dtype) == 16) {
    const bool half = dtype == KvDtype::kF16;
    const uint16_t bits =
        half ? HalfFromFloat(value) : Bfloat16FromFloat(value);
    std::memcpy(to, &bits, 2);
    return half ? FloatFromHalf(bits) : FloatFromBfloat16(bits);
  }
  if (dtype == KvDtype::kInt8) {
    const uint8_t code = Int8Code(value);
    *to = std::byte{code};
    return FromInt8Code(code);
  }
  if (dtype == KvDtype::kFp8E4m3) {
    const uint8_t code = Fp8Code(value);
    *to = std::byte{code};
    return FromFp8Code(code);
  }
  const uint8_t code = Int4Code(value);
  const int shift = element % 2 * 4;
  *to = (*to & std::byte{static_cast<uint8_t>(0xF0 >> shift)}) |
        std::byte{static_cast<uint8_t>(code << shift)};
  return FromInt4Code(code);
}

}  // namespace

std::string Describe(const AttentionCase& c) {
  std::vector<std::string> lengths;
  for (const SequenceCase& sequence : c.sequences) {
    lengths.push_back(absl::StrCat(sequence.past, "+", sequence.rows));
  }
  return absl::StrCat("groups {", absl::StrJoin(c.groups, ","), "} head_dim ",
                      c.head_dim, " ", std::string(KvDtypeName(c.dtype)),
                      c.scale == KvScale::kStatic ? " static scales" : "",
                      " sequences {", absl::StrJoin(lengths, ","), "} window ",
                      c.window, " sink ", c.sink, " workers ", c.workers,
                      c.causal ? "" : " encoder", c.bulk ? "" : " cp.async",
                      " activation ", static_cast<int>(c.activation));
}

AttentionWorld::AttentionWorld(const AttentionCase& attention_case)
    : case_(attention_case),
      layout_(MakeLayout(attention_case)),
      random_(attention_case.seed) {
  if (heads().has_attention()) {
    absl::StatusOr<KvGeometry> geometry = KvGeometry::Create(*layout_, 0);
    CHECK(geometry.ok()) << geometry.status();
    geometry_ = *std::move(geometry);
    MakeSequences();
    MakePages();
    MakeQueries();
    MakeReference();
  }
}

const LayerHeads& AttentionWorld::heads() const {
  return layout_->layers()[kLayer];
}

void AttentionWorld::MakeSequences() {
  int64_t blocks = 0;
  for (const SequenceCase& sequence : case_.sequences) {
    sequences_.push_back({.first_row = rows_,
                          .num_rows = sequence.rows,
                          .past = sequence.past,
                          .block_begin = {blocks}});
    rows_ += sequence.rows;
    blocks += KvGeometry::BlocksFor(sequence.past + sequence.rows);
  }
  blocks_.resize(static_cast<size_t>(blocks + kSpareBlocks));
  std::iota(blocks_.begin(), blocks_.end(), 0);
  std::shuffle(blocks_.begin(), blocks_.end(), random_);
  for (int64_t& block : blocks_) block *= geometry_->block_bytes();
  arena_.assign(blocks_.size() * static_cast<size_t>(geometry_->block_bytes()),
                std::byte{0xFF});
}

std::vector<double> AttentionWorld::StoreRow(const KvPage& page,
                                             std::byte* block, int token,
                                             bool is_value,
                                             float static_scale) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(case_.head_dim));
  float largest = 0;
  for (float& value : values) {
    value = normal(random_);
    largest = std::max(largest, std::abs(value));
  }
  float scale = 1;
  float inverse = 1;
  if (IsQuantized(page.dtype)) {
    const uint16_t half = KvScaleFor(largest, page.dtype);
    if (static_scale > 0) {
      scale = static_scale;
      inverse = 1 / static_scale;
    } else {
      scale = FloatFromHalf(half);
      inverse = InverseKvScale(half);
      std::memcpy(block +
                      (is_value ? page.v_scales_offset : page.k_scales_offset) +
                      token * 2,
                  &half, 2);
    }
  }
  const auto row_bytes =
      static_cast<int>(KvRowBytes(case_.head_dim, page.dtype));
  std::byte* tensor = block + (is_value ? page.v_offset : page.k_offset);
  std::vector<double> stored;
  for (int i = 0; i < case_.head_dim; ++i) {
    std::byte* to =
        tensor + cuda::PageElementOffset(row_bytes, page.dtype, token, i);
    stored.push_back(StoreElement(page.dtype,
                                  values[static_cast<size_t>(i)] * inverse, i,
                                  to) *
                     scale);
  }
  return stored;
}

void AttentionWorld::MakePages() {
  const size_t slots = heads().kv_heads.size();
  std::uniform_real_distribution<float> spread(0.5f, 1.0f);
  for (size_t i = 0; i < 2 * slots; ++i) {
    static_scales_.push_back(
        case_.scale == KvScale::kStatic && IsQuantized(case_.dtype)
            ? 4 * spread(random_) / LargestKvCode(case_.dtype)
            : 0);
  }
  stored_.resize(sequences_.size());
  for (size_t s = 0; s < sequences_.size(); ++s) {
    const StepSequence& sequence = sequences_[s];
    stored_[s].resize(slots);
    for (size_t slot = 0; slot < slots; ++slot) {
      const KvPage& page = geometry_->page(kLayer, static_cast<int>(slot));
      for (int token = 0; token < sequence.past + sequence.num_rows; ++token) {
        const int64_t index = sequence.block_begin[0] + token / kBlockTokens;
        std::byte* block = arena_.data() + blocks_[static_cast<size_t>(index)];
        for (size_t tensor = 0; tensor < 2; ++tensor) {
          const std::vector<double> row =
              StoreRow(page, block, token % kBlockTokens, tensor == 1,
                       static_scales_[2 * slot + tensor]);
          std::vector<double>& all = stored_[s][slot][tensor];
          all.insert(all.end(), row.begin(), row.end());
        }
      }
    }
  }
}

void AttentionWorld::MakeQueries() {
  std::normal_distribution<float> normal;
  queries_.resize(static_cast<size_t>(rows_) * heads().query_heads.size() *
                  static_cast<size_t>(case_.head_dim));
  for (double& q : queries_) q = Rounded(normal(random_), case_.activation);
}

void AttentionWorld::Attend(size_t s, int row, size_t slot, int query) {
  const StepSequence& sequence = sequences_[s];
  const auto dim = static_cast<size_t>(case_.head_dim);
  const size_t begin = (static_cast<size_t>(sequence.first_row + row) *
                            heads().query_heads.size() +
                        static_cast<size_t>(query)) *
                       dim;
  const int position = sequence.past + row;
  const int last =
      case_.causal ? position : sequence.past + sequence.num_rows - 1;
  const int64_t first = heads().kv_heads[slot].retention.FirstSeen(position);
  const auto& [keys, values] = stored_[s][slot];
  std::vector<double> weights;
  double highest = -std::numeric_limits<double>::infinity();
  for (size_t token = 0; token <= static_cast<size_t>(last); ++token) {
    if (token >= static_cast<size_t>(case_.sink) &&
        token < static_cast<size_t>(first)) {
      weights.push_back(-std::numeric_limits<double>::infinity());
      continue;
    }
    double score = 0;
    for (size_t i = 0; i < dim; ++i) {
      score += queries_[begin + i] * keys[token * dim + i];
    }
    weights.push_back(score / std::sqrt(static_cast<double>(dim)));
    highest = std::max(highest, weights.back());
  }
  double sum = 0;
  for (double& weight : weights) {
    weight = std::exp(weight - highest);
    sum += weight;
  }
  for (size_t t = 0; t < weights.size(); ++t) {
    for (size_t i = 0; i < dim; ++i) {
      reference_[begin + i] += weights[t] / sum * values[t * dim + i];
    }
  }
}

void AttentionWorld::MakeReference() {
  reference_.assign(queries_.size(), 0);
  for (size_t s = 0; s < sequences_.size(); ++s) {
    for (int row = 0; row < sequences_[s].num_rows; ++row) {
      for (size_t slot = 0; slot < heads().kv_heads.size(); ++slot) {
        const KvHead& head = heads().kv_heads[slot];
        for (int query = 0; query < head.num_queries; ++query) {
          Attend(s, row, slot, head.first_query + query);
        }
      }
    }
  }
}

int64_t AttentionWorld::FloorBytes() const {
  int64_t bytes = 2 * static_cast<int64_t>(queries_.size()) *
                  ActivationBytes(case_.activation);
  for (const StepSequence& sequence : sequences_) {
    for (size_t slot = 0; slot < heads().kv_heads.size(); ++slot) {
      bytes += KvGeometry::BlocksFor(sequence.past + sequence.num_rows) *
               geometry_->page(kLayer, static_cast<int>(slot)).bytes;
    }
  }
  return bytes;
}

double AttentionWorld::RelativeError() const {
  if (!heads().has_attention()) return 0;  // nothing to launch
  const int most =
      std::max_element(case_.groups.begin(), case_.groups.end())[0];
  const cuda::AttentionKernel decode =
      cuda::FindDecodeKernel(case_.dtype, case_.head_dim, most, case_.bulk);
  const cuda::AttentionKernel prefill =
      cuda::FindPrefillKernel(case_.dtype, case_.head_dim, case_.bulk);
  std::vector<int> query_slots(heads().query_heads.size());
  std::iota(query_slots.begin(), query_slots.end(), 0);
  const LayerHeads cut =
      cuda::CutGroups(heads(), query_slots, case_.dtype, decode.max_queries);
  BalancedPlan plan;
  PlanBalanced(cut, sequences_,
               {.workers = case_.workers,
                .min_tokens = case_.min_tokens,
                .tile_queries = prefill.max_queries},
               &plan);
  if (!case_.causal) {  // every row sees all
    for (WorkItem& item : plan.tiles) {
      const StepSequence& s = sequences_[static_cast<size_t>(item.sequence)];
      item.kv_end = s.past + s.num_rows;
    }
  }
  std::vector<cuda::AttentionHead> heads_made =
      cuda::MakeAttentionHeads(heads(), cut, {&*geometry_, 1}, kLayer);
  if (case_.scale == KvScale::kStatic) {
    for (size_t i = 0; i < cut.kv_heads.size(); ++i) {
      const auto slot = static_cast<size_t>(cut.kv_heads[i].index);
      heads_made[i].k_scale = static_scales_[2 * slot];
      heads_made[i].v_scale = static_scales_[2 * slot + 1];
    }
  }
  const DeviceArray<std::byte> queries(
      ToActivations(queries_, case_.activation));
  const DeviceArray<std::byte> out(
      queries_.size() * static_cast<size_t>(ActivationBytes(case_.activation)));
  const DeviceArray<std::byte> arena(arena_);
  const DeviceArray<int64_t> blocks(blocks_);
  const DeviceArray<cuda::AttentionHead> device_heads(heads_made);
  const DeviceArray<cuda::AttentionItem> decode_items(
      cuda::MakeAttentionItems(cut, sequences_, plan.decode, plan.merges));
  const DeviceArray<cuda::AttentionItem> tiles(
      cuda::MakeAttentionItems(cut, sequences_, plan.tiles, plan.merges));
  const DeviceArray<int32_t> worker_begin(plan.worker_begin);
  const auto partials = static_cast<size_t>(plan.num_partials);
  const DeviceArray<float> sums(partials * static_cast<size_t>(case_.head_dim));
  const DeviceArray<float> weights(partials * 2);
  const DeviceArray<int32_t> counters(
      std::vector<int32_t>(plan.merges.size(), 0));
  const auto stride =
      static_cast<int64_t>(heads().query_heads.size()) * case_.head_dim;
  cuda::AttentionParams params{
      .q = queries.data(),
      .out = out.data(),
      .q_stride = stride,
      .out_stride = stride,
      .activation = case_.activation,
      .causal = case_.causal,
      .token_scales =
          IsQuantized(case_.dtype) && case_.scale == KvScale::kToken,
      .arena = arena.data(),
      .blocks = blocks.data(),
      .heads = device_heads.data(),
      .items = decode_items.data(),
      .worker_begin = worker_begin.data(),
      .partial_sums = sums.data(),
      .partial_weights = weights.data(),
      .counters = counters.data(),
      .score_scale = std::numbers::log2e_v<float> /
                     std::sqrt(static_cast<float>(case_.head_dim))};
  if (!plan.decode.empty()) {
    Launch(decode.kernel, case_.workers, decode.threads, decode.shared_bytes,
           params);
  }
  if (!plan.tiles.empty()) {
    params.items = tiles.data();
    Launch(prefill.kernel, static_cast<int>(plan.tiles.size()), prefill.threads,
           prefill.shared_bytes, params);
  }
  for (const int32_t counter : counters.Read()) {
    if (counter != 0) return std::numeric_limits<double>::infinity();
  }
  const std::vector<std::byte> bytes = out.Read();
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < reference_.size(); ++i) {
    const double value = FromActivation(
        bytes.data() +
            i * static_cast<size_t>(ActivationBytes(case_.activation)),
        case_.activation);
    const double error = value - reference_[i];
    if (!std::isfinite(error)) return std::numeric_limits<double>::infinity();
    difference += error * error;
    norm += reference_[i] * reference_[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace headcount::gpu
