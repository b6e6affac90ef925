// Statistics of heads against sums in double precision over what the layers
// read and put out, and once against nothing but the weights.
#include "model/head_statistics.h"

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/cpu/cpu_backend.h"
#include "base/check.h"
#include "format/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/weight_names.h"
#include "tests/unit/model/model_runner.h"
#include "tests/unit/model/recording_backend.h"

namespace headcount {
namespace {

using ::testing::IsEmpty;

const char kTiny[] = HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/";
const char kSmolLm2[] = HEADCOUNT_SOURCE_DIR "/models/smollm2-135m";

// A tensor of a checkpoint in float32.
std::vector<float> Values(const Checkpoint& checkpoint,
                          const std::string& name) {
  const TensorView* const tensor = checkpoint.Find(name);
  CHECK(tensor != nullptr) << name;
  int64_t elements = 1;
  for (const int64_t size : tensor->shape) elements *= size;
  std::vector<float> values(static_cast<size_t>(elements));
  Dequantize(tensor->dtype, tensor->data.data(), 0, elements, values.data());
  return values;
}

// The output projection of a layer, [hidden, unpruned width].
std::vector<float> Projection(const Checkpoint& checkpoint,
                              const ModelConfig& config, size_t layer) {
  const WeightNames& names = WeightNamesOf(config.naming);
  return Values(checkpoint, absl::StrCat(names.layers, layer, ".",
                                         names.attention_out, ".weight"));
}

// |W_o^h o_h|, column by column.
double OutputNorm(const std::vector<float>& projection, size_t hidden,
                  size_t head, absl::Span<const float> context) {
  const size_t width = projection.size() / hidden;
  double square = 0;
  for (size_t row = 0; row < hidden; ++row) {
    double sum = 0;
    for (size_t i = 0; i < context.size(); ++i) {
      sum += double{projection[row * width + head * context.size() + i]} *
             context[i];
    }
    square += sum * sum;
  }
  return std::sqrt(square);
}

double Norm(absl::Span<const float> x) {
  double square = 0;
  for (const float value : x) square += double{value} * value;
  return std::sqrt(square);
}

// Sums over rows of one layer, added one by one.
struct Expected {
  Expected(size_t heads, size_t dim)
      : output_norm(heads), sum(heads * dim), gram(sum.size() * sum.size()) {}

  // o: the heads that are kept, one after the other.
  void Add(const std::vector<float>& projection, absl::Span<const float> x,
           const std::vector<int>& heads, absl::Span<const float> o) {
    const size_t dim = o.size() / heads.size();
    for (size_t h = 0; h < heads.size(); ++h) {
      output_norm[h] +=
          OutputNorm(projection, x.size(), static_cast<size_t>(heads[h]),
                     o.subspan(h * dim, dim)) /
          Norm(x);
    }
    for (size_t i = 0; i < o.size(); ++i) {
      sum[i] += o[i];
      for (size_t j = 0; j < o.size(); ++j) {
        gram[i * o.size() + j] += double{o[i]} * o[j];
      }
    }
    ++tokens;
  }

  int64_t tokens = 0;
  std::vector<double> output_norm, sum, gram;
};

void ExpectNear(const std::vector<double>& found,
                const std::vector<double>& expected, double relative) {
  ASSERT_EQ(found.size(), expected.size());
  double largest = 0;
  for (const double value : expected) {
    largest = std::max(largest, std::fabs(value));
  }
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], relative * largest) << i;
  }
}

void ExpectLayer(const LayerStatistics& found, const Expected& expected,
                 double relative) {
  EXPECT_EQ(found.tokens, expected.tokens);
  ExpectNear(found.output_norm, expected.output_norm, relative);
  ExpectNear(found.sum, expected.sum, 1e-5);
  ExpectNear(found.gram, expected.gram, 1e-5);
}

std::vector<int32_t> SomeIds(const ModelConfig& config, size_t count,
                             int32_t start) {
  std::vector<int32_t> ids(count);
  for (size_t i = 0; i < count; ++i) {
    ids[i] = (start + static_cast<int32_t>(i) * 37) % config.vocab;
  }
  return ids;
}

struct World {
  World(const std::string& its_path, const HeadMask& mask)
      : path(its_path),
        backend(CreateCpuBackend({.threads = 2})),
        runner(
            &backend,
            {.model = {.path = path, .mask = mask, .kv_dtype = KvDtype::kF32}}),
        checkpoint(Checkpoint::Open(path).value()) {}

  const ModelConfig& config() const { return runner.model().config(); }

  const std::string path;
  RecordingBackend backend;
  ModelRunner runner;
  const Checkpoint checkpoint;
};

// What `seen` says of rows [first, first + count) of every step, for the kept
// heads of a variant, whose slots are `slots`.
Expected SumUp(const World& world, size_t layer, const Variant& variant,
               size_t first, size_t count) {
  const std::vector<int>& heads = variant.layout().layers()[layer].query_heads;
  const std::vector<int>& slots = variant.slots()[layer].query;
  const auto dim = static_cast<size_t>(world.config().head_dim);
  const auto hidden = static_cast<size_t>(world.config().hidden);
  const std::vector<float> projection =
      Projection(world.checkpoint, world.config(), layer);
  Expected expected(heads.size(), dim);
  for (const RecordingBackend::Seen& seen : world.backend.seen) {
    if (seen.layer != static_cast<int>(layer)) continue;
    const size_t rows = seen.residual.size() / hidden;
    const size_t width = seen.context.size() / rows;
    for (size_t row = first; row < std::min(rows, first + count); ++row) {
      std::vector<float> o;
      for (const int slot : slots) {
        const auto begin = seen.context.begin() +
                           static_cast<std::ptrdiff_t>(
                               row * width + static_cast<size_t>(slot) * dim);
        o.insert(o.end(), begin, begin + static_cast<std::ptrdiff_t>(dim));
      }
      expected.Add(
          projection,
          absl::MakeConstSpan(seen.residual).subspan(row * hidden, hidden),
          heads, o);
    }
  }
  return expected;
}

HeadMask SomeMask(const ModelConfig& config) {
  HeadMask mask;
  const LayerShape& shape = config.heads[0];
  mask.pruned[0] = {1};
  for (int head = 0; head < shape.query_heads; ++head) {
    mask.pruned[1].insert(head);
  }
  return mask;
}

ModelConfig ConfigAt(const std::string& path) {
  return ReadModelConfig(path).value();
}

TEST(HeadStatistics, AreTheSumsOverWhatTheLayersPutOut) {
  for (const char* name :
       {"llama_gqa", "llama_bias", "llama_mqa", "qwen3", "mistral_window"}) {
    for (const bool prune : {false, true}) {
      SCOPED_TRACE(absl::StrCat(name, prune ? ", pruned" : ""));
      const std::string path = absl::StrCat(kTiny, name);
      World world(path, prune ? SomeMask(ConfigAt(path)) : HeadMask());
      HeadStatistics statistics(world.runner.model().layout(), true);
      ModelRunner::Sequence sequence{.statistics = &statistics};
      world.runner.Prefill(&sequence, SomeIds(world.config(), 40, 1), 9);
      for (size_t l = 0; l < statistics.layers().size(); ++l) {
        SCOPED_TRACE(absl::StrCat("layer ", l));
        const LayerStatistics& layer = statistics.layers()[l];
        if (layer.query_heads.empty()) {
          EXPECT_EQ(layer.tokens, 0);
          EXPECT_THAT(layer.gram, IsEmpty());
          continue;
        }
        EXPECT_EQ(layer.tokens, 40);
        ExpectLayer(
            layer, SumUp(world, l, *world.runner.model().whole(), 0, 40), 1e-4);
      }
      EXPECT_TRUE(statistics.status().ok()) << statistics.status();
    }
  }
}

TEST(HeadStatistics, OfAVariantAreThoseOfTheHeadsThatItRuns) {
  const std::string path = absl::StrCat(kTiny, "llama_gqa");
  World world(path, {});
  const HeadMask mask = SomeMask(world.config());
  const size_t index =
      world.runner.AddVariant({.mask = mask, .kv_dtype = KvDtype::kF32});
  const Variant& variant = world.runner.variant(index);
  HeadStatistics statistics(variant.layout(), true);
  // Rows 0 to 11 are the base's, 12 to 23 the variant's, of which the first
  // five tokens are skipped.
  const std::vector<int32_t> ids = SomeIds(world.config(), 12, 3);
  ModelRunner::Sequence base;
  ModelRunner::Sequence counted{
      .variant = index, .statistics = &statistics, .statistics_from = 5};
  world.runner.Step({{&base, ids, 1}, {&counted, ids, 1}});
  for (size_t l = 0; l < statistics.layers().size(); ++l) {
    const LayerStatistics& layer = statistics.layers()[l];
    if (layer.query_heads.empty()) continue;
    ExpectLayer(layer, SumUp(world, l, variant, 12 + 5, 7), 1e-4);
    EXPECT_EQ(layer.tokens, 7);
  }
}

TEST(HeadStatistics, OfSequencesThatShareThemAreAddedUp) {
  World world(absl::StrCat(kTiny, "qwen2"), {});
  HeadStatistics shared(world.runner.model().layout(), true);
  HeadStatistics other(world.runner.model().layout(), false);
  std::vector<ModelRunner::Sequence> sequences(4);
  sequences[0].statistics = &shared;
  sequences[1].statistics = &other;
  sequences[2].statistics = nullptr;
  sequences[3].statistics = &shared;
  std::vector<std::vector<int32_t>> ids;
  std::vector<ModelRunner::Feed> feeds;
  for (int32_t i = 0; i < 4; ++i) {
    ids.push_back(SomeIds(world.config(), 6, i));
  }
  for (size_t i = 0; i < 4; ++i) feeds.push_back({&sequences[i], ids[i], 0});
  world.runner.Step(feeds);
  const Variant& whole = *world.runner.model().whole();
  Expected expected = SumUp(world, 1, whole, 0, 6);
  const Expected last = SumUp(world, 1, whole, 18, 6);
  expected.tokens += last.tokens;
  for (size_t i = 0; i < last.sum.size(); ++i) expected.sum[i] += last.sum[i];
  EXPECT_EQ(shared.layers()[1].tokens, expected.tokens);
  ExpectNear(shared.layers()[1].sum, expected.sum, 1e-5);
  EXPECT_EQ(other.layers()[1].tokens, 6);
  ExpectNear(other.layers()[1].sum, SumUp(world, 1, whole, 6, 6).sum, 1e-5);
  EXPECT_THAT(other.layers()[1].gram, IsEmpty());
}

// The first layer sees the embedding x of a single token: attention has nothing
// to choose, so each head puts out W_v of its KV head times the normed x.
TEST(HeadStatistics, OfASingleTokenFollowFromTheWeightsAlone) {
  World world(absl::StrCat(kTiny, "llama_gqa"), {});
  const ModelConfig& config = world.config();
  const auto hidden = static_cast<size_t>(config.hidden);
  const auto dim = static_cast<size_t>(config.head_dim);
  const LayerShape shape = config.heads[0];
  const auto embedding = Values(world.checkpoint, "model.embed_tokens.weight");
  const std::string prefix = "model.layers.0.";
  const auto norm = Values(world.checkpoint, prefix + "input_layernorm.weight");
  const auto value =
      Values(world.checkpoint, prefix + "self_attn.v_proj.weight");
  const auto projection = Projection(world.checkpoint, config, 0);
  std::vector<int> heads;
  for (int head = 0; head < shape.query_heads; ++head) heads.push_back(head);

  HeadStatistics statistics(world.runner.model().layout(), true);
  Expected expected(heads.size(), dim);
  for (const int32_t id : SomeIds(config, 20, 7)) {
    ModelRunner::Sequence sequence{.statistics = &statistics};
    world.runner.Step({{&sequence, absl::MakeConstSpan(&id, 1), 0}});
    const absl::Span<const float> x = absl::MakeConstSpan(embedding).subspan(
        static_cast<size_t>(id) * hidden, hidden);
    const double rms = std::sqrt(
        Norm(x) * Norm(x) / static_cast<double>(hidden) + config.rms_epsilon);
    std::vector<float> o;
    for (const int head : heads) {
      const auto kv =
          static_cast<size_t>(head / (shape.query_heads / shape.kv_heads));
      for (size_t i = 0; i < dim; ++i) {
        double sum = 0;
        for (size_t j = 0; j < hidden; ++j) {
          sum +=
              double{value[(kv * dim + i) * hidden + j]} * x[j] / rms * norm[j];
        }
        o.push_back(static_cast<float>(sum));
      }
    }
    expected.Add(projection, x, heads, o);
  }
  ExpectLayer(statistics.layers()[0], expected, 1e-4);
}

// Its output projections are stored in 4 bits.
TEST(HeadStatistics, OfQuantisedProjectionsAreThoseOfTheirValues) {
  if (!std::filesystem::exists(kSmolLm2)) {
    GTEST_SKIP() << "scripts/fetch_model.sh has not put the model";
  }
  World world(kSmolLm2, {});
  HeadStatistics statistics(world.runner.model().layout(), false);
  ModelRunner::Sequence sequence{.statistics = &statistics};
  world.runner.Prefill(&sequence, SomeIds(world.config(), 8, 100), 8);
  for (const size_t layer : {size_t{0}, size_t{17}}) {
    const Expected expected =
        SumUp(world, layer, *world.runner.model().whole(), 0, 8);
    ExpectNear(statistics.layers()[layer].output_norm, expected.output_norm,
               1e-2);
    ExpectNear(statistics.layers()[layer].sum, expected.sum, 1e-5);
  }
}

}  // namespace
}  // namespace headcount
