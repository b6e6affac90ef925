#include "tests/unit/backend/attention_world.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/half.h"
#include "heads/kv_codes.h"
#include "tests/unit/backend/random_floats.h"

namespace headcount {
namespace {

// The layer under test is the second of two, so that its pages do not lie at
// the start of a block.
constexpr int kLayer = 1;

HeadLayout MakeLayout(const AttentionCase& attention_case) {
  HeadLayoutSpec spec;
  spec.layers = {LayerShape{2, 1}, attention_case.shape};
  for (LayerShape& shape : spec.layers) {
    shape.retention = {.window = attention_case.window,
                       .sink = attention_case.sink};
  }
  spec.head_dim = attention_case.head_dim;
  spec.kv_dtype = attention_case.dtype;
  for (const auto& [head, dtype] : attention_case.head_dtypes) {
    spec.kv_head_rules[kLayer][head].dtype = dtype;
  }
  if (!attention_case.pruned.empty()) {
    spec.mask.pruned[kLayer] = attention_case.pruned;
  }
  absl::StatusOr<HeadLayout> layout = HeadLayout::Create(spec);
  CHECK(layout.ok()) << layout.status();
  return *std::move(layout);
}

float CodeValue(float scaled, KvDtype dtype) {
  if (dtype == KvDtype::kInt8) return FromInt8Code(Int8Code(scaled));
  if (dtype == KvDtype::kInt4) return FromInt4Code(Int4Code(scaled));
  return FromFp8Code(Fp8Code(scaled));
}

// What a page of that dtype makes of a key or value.
std::vector<double> AsStored(const std::vector<float>& head, KvDtype dtype) {
  float largest = 0;
  for (const float x : head) largest = std::max(largest, std::fabs(x));
  const uint16_t scale = KvScaleFor(largest, dtype);
  std::vector<double> stored;
  for (const float x : head) {
    switch (dtype) {
      case KvDtype::kF32:
        stored.push_back(x);
        break;
      case KvDtype::kF16:
        stored.push_back(FloatFromHalf(HalfFromFloat(x)));
        break;
      case KvDtype::kBf16:
        stored.push_back(FloatFromBfloat16(Bfloat16FromFloat(x)));
        break;
      default:
        stored.push_back(double{FloatFromHalf(scale)} *
                         CodeValue(x * InverseKvScale(scale), dtype));
    }
  }
  return stored;
}

// Blocks of every sequence in shuffled places of an arena with some to spare.
std::vector<std::vector<int64_t>> ShuffledBlocks(
    const std::vector<int>& lengths, int64_t block_bytes, uint32_t seed,
    int64_t* arena_bytes) {
  int64_t total = 5;
  for (const int length : lengths) total += KvGeometry::BlocksFor(length);
  std::vector<int64_t> offsets(static_cast<size_t>(total));
  for (size_t i = 0; i < offsets.size(); ++i) {
    offsets[i] = static_cast<int64_t>(i) * block_bytes;
  }
  TestRandom random(seed);
  std::shuffle(offsets.begin(), offsets.end(), random);
  std::vector<std::vector<int64_t>> blocks;
  for (const int length : lengths) {
    blocks.emplace_back();
    for (int64_t i = KvGeometry::BlocksFor(length); i > 0; --i) {
      blocks.back().push_back(offsets.back());
      offsets.pop_back();
    }
  }
  *arena_bytes = total * block_bytes;
  return blocks;
}

}  // namespace

AttentionWorld::AttentionWorld(const AttentionCase& attention_case,
                               uint32_t seed)
    : case_(attention_case), layout_(MakeLayout(attention_case)) {
  for (size_t group = 0; group < layout_.groups().size(); ++group) {
    geometries_.push_back(
        *KvGeometry::Create(layout_, static_cast<int>(group)));
  }
  const int half = case_.head_dim / 2;
  for (int i = 0; i < half; ++i) {
    rope_.inverse_frequency.push_back(
        static_cast<float>(std::pow(10000.0, -static_cast<double>(i) / half)));
  }
  rope_.scale = 1.1f;
  tokens_ =
      std::accumulate(case_.lengths.begin(), case_.lengths.end(), int64_t{0});
  TestRandom random(seed);
  qkv_ = RandomFloats(random, tokens_ * qkv_width());
  for (float& value : qkv_) value *= 3;  // so that some weights are small
}

int64_t AttentionWorld::out_width() const {
  const auto queries =
      static_cast<int64_t>(layout_.layers()[kLayer].query_heads.size());
  return queries * case_.head_dim;
}

int64_t AttentionWorld::qkv_width() const {
  const auto kv_heads =
      static_cast<int64_t>(layout_.layers()[kLayer].kv_heads.size());
  return out_width() + 2 * kv_heads * case_.head_dim;
}

int64_t AttentionWorld::FirstToken(int sequence) const {
  return std::accumulate(case_.lengths.begin(),
                         case_.lengths.begin() + sequence, int64_t{0});
}

Schedule AttentionWorld::OneByOne() const {
  Schedule schedule;
  for (size_t s = 0; s < case_.lengths.size(); ++s) {
    for (int token = 0; token < case_.lengths[s]; ++token) {
      schedule.push_back({{.sequence = static_cast<int>(s), .rows = 1}});
    }
  }
  return schedule;
}

Schedule AttentionWorld::RandomSchedule(uint32_t seed) const {
  TestRandom random(seed);
  std::vector<int> left = case_.lengths;
  Schedule schedule;
  while (std::any_of(left.begin(), left.end(), [](int n) { return n > 0; })) {
    std::vector<ScheduledRows> step;
    for (size_t s = 0; s < left.size(); ++s) {
      if (left[s] == 0 || RandomInt(random, 0, 3) == 0) continue;
      const int most = RandomInt(random, 0, 1) == 0 ? 5 : 80;
      const int rows = std::min(left[s], RandomInt(random, 1, most));
      step.push_back({.sequence = static_cast<int>(s), .rows = rows});
      left[s] -= rows;
    }
    if (!step.empty()) schedule.push_back(step);
  }
  return schedule;
}

std::vector<float> AttentionWorld::Run(const Schedule& schedule,
                                       const AttentionPlanOptions& options,
                                       Backend* backend,
                                       uint32_t block_seed) const {
  int64_t arena_bytes = 0;
  std::vector<std::vector<int64_t>> blocks =
      ShuffledBlocks(case_.lengths, geometries_.front().block_bytes(),
                     block_seed, &arena_bytes);
  const std::unique_ptr<Buffer> arena = *backend->Allocate(arena_bytes);
  // A NaN in every float, the scales of codes included.
  std::memset(arena->data(), 0xFF, static_cast<size_t>(arena_bytes));
  std::vector<int> past(case_.lengths.size(), 0);
  std::vector<float> result(static_cast<size_t>(tokens_ * out_width()));
  for (const std::vector<ScheduledRows>& step : schedule) {
    std::vector<StepSequence> sequences;
    std::vector<int64_t> block_offsets;
    std::vector<int32_t> positions;
    std::vector<float> qkv;
    std::vector<int64_t> tokens;  // [row] -> token of this world
    for (const ScheduledRows& rows : step) {
      const auto s = static_cast<size_t>(rows.sequence);
      StepSequence sequence;
      sequence.first_row = static_cast<int32_t>(positions.size());
      sequence.num_rows = rows.rows;
      sequence.past = past[s];
      sequence.block_begin = {static_cast<int64_t>(block_offsets.size())};
      GiveBackUnseen(past[s], arena->data(), &blocks[s]);
      block_offsets.insert(block_offsets.end(), blocks[s].begin(),
                           blocks[s].end());
      for (int i = 0; i < rows.rows; ++i) {
        const int64_t token = FirstToken(rows.sequence) + past[s];
        positions.push_back(past[s]++);
        tokens.push_back(token);
        const auto from = qkv_.begin() + token * qkv_width();
        qkv.insert(qkv.end(), from, from + qkv_width());
      }
      sequences.push_back(sequence);
    }
    std::vector<AttentionPlan> plans(1);
    PlanAttention(layout_.layers()[kLayer], sequences, options, &plans[0]);
    const std::vector<int32_t> ids(positions.size(), 0);
    StepInputs inputs;
    inputs.tokens = ids;
    inputs.positions = positions;
    inputs.sequences = sequences;
    inputs.block_offsets = block_offsets;
    inputs.plans = plans;
    backend->BeginStep(inputs, rope_);
    const LayerSlots slots = SlotsIn(layout_, layout_).value()[kLayer];
    const VariantLayer whole{.heads = &layout_.layers()[kLayer],
                             .geometries = geometries_,
                             .query_slots = slots.query,
                             .kv_slots = slots.kv};
    AttentionLayer layer;
    layer.query_heads = static_cast<int>(slots.query.size());
    layer.kv_heads = static_cast<int>(slots.kv.size());
    layer.variants = absl::MakeConstSpan(&whole, 1);
    layer.layer = kLayer;
    layer.head_dim = case_.head_dim;
    backend->RotateAndStoreKv(layer, qkv.data(), arena->data());
    std::vector<float> out(tokens.size() * static_cast<size_t>(out_width()));
    backend->Attention(layer, qkv.data(), arena->data(), out.data());
    for (size_t row = 0; row < tokens.size(); ++row) {
      std::copy_n(out.begin() + static_cast<int64_t>(row) * out_width(),
                  out_width(), result.begin() + tokens[row] * out_width());
    }
  }
  return result;
}

// Makes holes of the blocks that the query at `position` does not see.
void AttentionWorld::GiveBackUnseen(int position, void* arena,
                                    std::vector<int64_t>* blocks) const {
  const int64_t unseen = std::max(0, position + 1 - case_.window);
  if (case_.window == 0) return;
  const int64_t bytes = geometries_.front().block_bytes();
  for (auto i = static_cast<size_t>(case_.sink / kBlockTokens);
       i < static_cast<size_t>(unseen / kBlockTokens); ++i) {
    if ((*blocks)[i] < 0) continue;
    std::memset(static_cast<std::byte*>(arena) + (*blocks)[i], 0xFF,
                static_cast<size_t>(bytes));
    (*blocks)[i] = -1;
  }
}

// Head `slot` of a token's projection, rotated to its position where asked: in
// the float32 operations of a backend, so that keys are rounded to the same
// codes.
std::vector<float> AttentionWorld::Head(int64_t token, int position,
                                        int64_t slot, bool rotated) const {
  const int d = case_.head_dim;
  const float* x = qkv_.data() + token * qkv_width() + slot * d;
  std::vector<float> head(x, x + d);
  if (!rotated) return head;
  for (int i = 0; i < d / 2; ++i) {
    const float angle = static_cast<float>(position) *
                        rope_.inverse_frequency[static_cast<size_t>(i)];
    const float cos = std::cos(angle) * rope_.scale;
    const float sin = std::sin(angle) * rope_.scale;
    head[static_cast<size_t>(i)] = x[i] * cos - x[i + d / 2] * sin;
    head[static_cast<size_t>(i + d / 2)] = x[i + d / 2] * cos + x[i] * sin;
  }
  return head;
}

void AttentionWorld::ScaleToken(int64_t token, float factor) {
  for (int64_t i = 0; i < qkv_width(); ++i) {
    qkv_[static_cast<size_t>(token * qkv_width() + i)] *= factor;
  }
}

std::vector<double> AttentionWorld::Reference() const {
  const LayerHeads& heads = layout_.layers()[kLayer];
  const int d = case_.head_dim;
  const auto queries = static_cast<int64_t>(heads.query_heads.size());
  const auto kv_heads = static_cast<int64_t>(heads.kv_heads.size());
  std::vector<double> result(static_cast<size_t>(tokens_ * out_width()), 0.0);
  for (size_t s = 0; s < case_.lengths.size(); ++s) {
    const int64_t first = FirstToken(static_cast<int>(s));
    for (int64_t kv = 0; kv < kv_heads; ++kv) {
      std::vector<std::vector<double>> keys;
      std::vector<std::vector<double>> values;
      for (int t = 0; t < case_.lengths[s]; ++t) {
        const KvHead& head = heads.kv_heads[static_cast<size_t>(kv)];
        keys.push_back(
            AsStored(Head(first + t, t, queries + kv, true), head.dtype));
        values.push_back(AsStored(
            Head(first + t, t, queries + kv_heads + kv, false), head.dtype));
        for (int64_t q = head.first_query;
             q < head.first_query + head.num_queries; ++q) {
          const std::vector<float> query = Head(first + t, t, q, true);
          std::vector<double> scores;
          for (const std::vector<double>& key : keys) {
            scores.push_back(std::inner_product(query.begin(), query.end(),
                                                key.begin(), 0.0) /
                             std::sqrt(d));
          }
          for (int i = case_.sink; case_.window > 0 && i <= t - case_.window;
               ++i) {
            scores[static_cast<size_t>(i)] = -HUGE_VAL;
          }
          const double highest =
              *std::max_element(scores.begin(), scores.end());
          double sum = 0;
          for (double& score : scores) sum += score = std::exp(score - highest);
          double* out =
              &result[static_cast<size_t>((first + t) * out_width() + q * d)];
          for (size_t token = 0; token < scores.size(); ++token) {
            for (int i = 0; i < d; ++i) {
              out[i] +=
                  scores[token] / sum * values[token][static_cast<size_t>(i)];
            }
          }
        }
      }
    }
  }
  return result;
}

}  // namespace headcount
