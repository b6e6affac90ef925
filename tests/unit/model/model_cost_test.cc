// What models cost, against published totals of parameters, numbers worked out
// by hand, and the weights that are really loaded.
#include "model/model_cost.h"

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "format/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "heads/capacity_plan.h"
#include "heads/even_mask.h"
#include "heads/kv_geometry.h"
#include "model/model.h"
#include "model/model_shape.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

ModelShape Shape(const std::string& name) {
  absl::StatusOr<ModelShape> shape = ReadModelShape(
      HEADCOUNT_SOURCE_DIR "/tests/data/configs/" + name + ".json");
  EXPECT_TRUE(shape.ok()) << shape.status();
  return *std::move(shape);
}

HeadLayout Layout(const ModelShape& shape, const HeadMask& mask = {},
                  KvDtype dtype = KvDtype::kF16) {
  absl::StatusOr<HeadLayout> layout =
      HeadLayout::Create({.layers = shape.heads,
                          .head_dim = shape.head_dim,
                          .mask = mask,
                          .kv_dtype = dtype});
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *std::move(layout);
}

HeadLayout Cut(const ModelShape& shape, int groups,
               KvDtype dtype = KvDtype::kF16) {
  int all = 0;
  for (const LayerShape& layer : shape.heads) all += layer.kv_heads;
  return Layout(shape,
                EvenMask(shape.heads, static_cast<double>(all - groups) / all),
                dtype);
}

TEST(ModelCost, ParametersAreThoseThatArePublished) {
  const struct {
    const char* name;
    int64_t parameters;
  } kModels[] = {
      {"llama-3.1-8b", 8030261248},     {"mistral-7b-v0.1", 7241732096},
      {"mistral-7b-v0.3", 7248023552},  {"qwen2.5-7b", 7615616512},
      {"smollm2-135m", 134515008},      {"gpt2", 124439808},
      {"bert-base-uncased", 109482240}, {"falcon-7b", 6921720704},
      {"openelm-270m", 271527168},
  };
  for (const auto& [name, parameters] : kModels) {
    const ModelShape shape = Shape(name);
    EXPECT_EQ(Parameters(shape, Layout(shape)), parameters) << name;
  }
}

TEST(ModelCost, ReadsWhatIsNotServed) {
  EXPECT_TRUE(Shape("llama-3.1-8b").served);
  EXPECT_FALSE(Shape("gpt2").served);
  EXPECT_FALSE(Shape("bert-base-uncased").decoder);
  const ModelShape falcon = Shape("falcon-7b");
  EXPECT_EQ(falcon.heads.front(), (LayerShape{71, 1}));
  EXPECT_EQ(*KvBytesPerToken(Layout(falcon)), 32 * 2 * 64 * 2);
  EXPECT_EQ(Shape("openelm-270m").weight_type, ElementType::kF32);
  EXPECT_EQ(Shape("llama-3.1-8b").weight_type, ElementType::kBf16);
}

TEST(ModelCost, PrunedGroupsTakeTheirWeightsAlong) {
  const struct {
    const char* name;
    int groups_cut;
    int64_t parameters;
  } kCases[] = {
      {"llama-3.1-8b", 64, 7694716928},     {"llama-3.1-8b", 96, 7526944768},
      {"llama-3.1-8b", 128, 7359172608},    {"mistral-7b-v0.3", 64, 6912479232},
      {"mistral-7b-v0.3", 128, 6576934912}, {"qwen2.5-7b", 28, 7410063360},
      {"qwen2.5-7b", 42, 7307286784},       {"qwen2.5-7b", 56, 7204510208},
      {"smollm2-135m", 22, 128026944},      {"smollm2-135m", 34, 124488000},
      {"smollm2-135m", 45, 121243968},
  };
  for (const auto& [name, cut, parameters] : kCases) {
    const ModelShape shape = Shape(name);
    EXPECT_EQ(Parameters(shape, Cut(shape, cut)), parameters)
        << name << ", " << cut;
  }
}

// floor((floor(0.9 M) - W - 1 GiB) / KV of S tokens), without slabs and
// watermark: PoolPlan::undivided.
TEST(ModelCost, SequencesAreThoseOfThePlainDivision) {
  const struct {
    const char* name;
    int groups_cut;
    KvDtype dtype;
    int64_t gib;
    int64_t context;
    int64_t sequences;
  } kCases[] = {
      {"llama-3.1-8b", 0, KvDtype::kF16, 24, 4096, 11},
      {"llama-3.1-8b", 0, KvDtype::kF16, 24, 4097, 11},
      {"llama-3.1-8b", 0, KvDtype::kF16, 24, 8192, 5},
      {"llama-3.1-8b", 0, KvDtype::kF16, 80, 32768, 14},
      {"llama-3.1-8b", 64, KvDtype::kF16, 24, 4096, 16},
      {"llama-3.1-8b", 96, KvDtype::kF16, 24, 4096, 21},
      {"llama-3.1-8b", 128, KvDtype::kF16, 24, 4096, 27},
      {"llama-3.1-8b", 128, KvDtype::kF16, 80, 32768, 28},
      {"mistral-7b-v0.3", 0, KvDtype::kF16, 24, 4096, 14},
      {"mistral-7b-v0.3", 64, KvDtype::kF16, 24, 4096, 20},
      {"mistral-7b-v0.3", 128, KvDtype::kF16, 24, 4096, 33},
      {"qwen2.5-7b", 0, KvDtype::kF16, 24, 4096, 29},
      {"qwen2.5-7b", 56, KvDtype::kF16, 24, 4096, 65},
      {"qwen2.5-7b", 42, KvDtype::kF16, 80, 32768, 52},
      {"smollm2-135m", 0, KvDtype::kF16, 24, 4096, 231},
      {"smollm2-135m", 45, KvDtype::kF16, 24, 8192, 231},
      {"gpt2", 0, KvDtype::kF16, 8, 1024, 169},
      {"gpt2", 72, KvDtype::kF16, 8, 1024, 341},
  };
  for (const auto& c : kCases) {
    const ModelShape shape = Shape(c.name);
    const HeadLayout layout = Cut(shape, c.groups_cut, c.dtype);
    const int64_t pool =
        c.gib * kGiB * 9 / 10 - kGiB -
        WeightBytes(Parameters(shape, layout), ElementType::kBf16);
    const absl::StatusOr<PoolPlan> plan =
        PlanPool(layout, {.pool_bytes = pool, .context_tokens = c.context});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->undivided, c.sequences)
        << c.name << ", " << c.groups_cut << " groups cut, " << c.gib
        << " GiB, " << c.context;
    EXPECT_LE(plan->held, plan->undivided);
    EXPECT_LE(plan->admitted, plan->held);
    // A thirtieth for the watermark, ends of slabs and a part of a sequence.
    EXPECT_GE(plan->admitted, plan->undivided * 29 / 30 - 1);
  }
}

TEST(ModelCost, ArithmeticOfATokenOfADecoder) {
  const struct {
    const char* name;
    int64_t context;
    TokenFlops flops;
  } kCases[] = {
      {"llama-3.1-8b", 4096, {2684354560, 2147483648, 11274289152, 1050673152}},
      {"llama-3.1-8b",
       131072,
       {2684354560, 68719476736, 11274289152, 1050673152}},
      {"mistral-7b-v0.3",
       32768,
       {2684354560, 17179869184, 11274289152, 268435456}},
      {"qwen2.5-7b", 4096, {1644167168, 1644167168, 11406409728, 1089994752}},
      {"smollm2-135m", 4096, {53084160, 283115520, 159252480, 56623104}},
      // Its window is 4,096.
      {"mistral-7b-v0.1",
       32768,
       {2684354560, 2147483648, 11274289152, 262144000}},
  };
  for (const auto& [name, context, flops] : kCases) {
    const ModelShape shape = Shape(name);
    const TokenFlops found = FlopsPerToken(shape, Layout(shape), context);
    EXPECT_EQ(found.projections, flops.projections) << name;
    EXPECT_EQ(found.attention, flops.attention) << name << ", " << context;
    EXPECT_EQ(found.mlp, flops.mlp) << name;
    EXPECT_EQ(found.output, flops.output) << name;
  }
}

TEST(ModelCost, ArithmeticOfAnEncoderAndWhatItsHeadsCanSave) {
  const ModelShape bert = Shape("bert-base-uncased");
  const HeadLayout all = Layout(bert);
  const HeadLayout half = Cut(bert, 72);
  const struct {
    int64_t context;
    int64_t attention;
    double speed_up;
  } kCases[] = {{64, 2359296, 1.207},
                {128, 4718592, 1.213},
                {384, 14155776, 1.238},
                {512, 18874368, 1.250}};
  for (const auto& [context, attention, speed_up] : kCases) {
    const TokenFlops flops = FlopsPerToken(bert, all, context);
    EXPECT_EQ(flops.projections, 56623104);
    EXPECT_EQ(flops.attention, attention);
    EXPECT_EQ(flops.mlp, 113246208);
    EXPECT_EQ(flops.output, 0);
    EXPECT_NEAR(
        PrefillFlops(bert, all, context) / PrefillFlops(bert, half, context),
        speed_up, 0.0005);
  }
  EXPECT_EQ(Parameters(bert, all) - Parameters(bert, Cut(bert, 1)), 196800);
}

TEST(ModelCost, APromptAttendsToWhatIsBeforeItself) {
  const ModelShape llama = Shape("llama-3.1-8b");
  const HeadLayout layout = Layout(llama);
  const TokenFlops flops = FlopsPerToken(llama, layout, 1000);
  // 4 D x 1000 x 1001 / 2 for each of 1,024 heads.
  EXPECT_EQ(PrefillFlops(llama, layout, 1000),
            1000.0 * static_cast<double>(flops.projections + flops.mlp) +
                static_cast<double>(flops.output) +
                4.0 * 128 * 1000 * 1001 / 2 * 1024);
  // In a window of 4,096: 1 + 2 + ... + 4,096, then 4,096 each.
  const ModelShape mistral = Shape("mistral-7b-v0.1");
  const HeadLayout windowed = Layout(mistral);
  const TokenFlops one = FlopsPerToken(mistral, windowed, 5000);
  EXPECT_EQ(PrefillFlops(mistral, windowed, 5000),
            5000.0 * static_cast<double>(one.projections + one.mlp) +
                static_cast<double>(one.output) +
                4.0 * 128 * 1024 * (4096.0 * 4097 / 2 + 904 * 4096.0));
}

TEST(ModelCost, ATokenReadsTheKeysAndValuesThatItSees) {
  const ModelShape llama = Shape("llama-3.1-8b");
  EXPECT_EQ(AttendedBytes(Layout(llama), 1000), 131072000);
  const ModelShape mistral = Shape("mistral-7b-v0.1");
  EXPECT_EQ(AttendedBytes(Layout(mistral), 32768), 536870912);
  // Bytes of a step, all groups over half of them, weights in bf16.
  const HeadLayout half = Cut(llama, 128);
  const auto step = [&](const HeadLayout& layout, int64_t batch, int64_t s) {
    return static_cast<double>(2 * Parameters(llama, layout) +
                               batch * AttendedBytes(layout, s));
  };
  const HeadLayout all = Layout(llama);
  EXPECT_NEAR(step(all, 1, 1024) / step(half, 1, 1024), 1.095, 0.0005);
  EXPECT_NEAR(step(all, 16, 4096) / step(half, 16, 4096), 1.296, 0.0005);
  EXPECT_NEAR(step(all, 32, 8192) / step(half, 32, 8192), 1.581, 0.0005);
}

TEST(ModelCost, WeightBytesCountBlocks) {
  EXPECT_EQ(WeightBytes(1000, ElementType::kBf16), 2000);
  EXPECT_EQ(WeightBytes(64, ElementType::kQ8_0), 68);
  EXPECT_EQ(WeightBytes(48, ElementType::kQ4_0), 27);
}

// What the loader leaves out is what the arithmetic says.
TEST(ModelCost, AgreesWithTheWeightsThatAreLoaded) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  for (const char* name : {"llama_bias", "llama_gqa", "llama_mha_tied",
                           "llama_mqa", "mistral_window", "qwen2", "qwen3"}) {
    SCOPED_TRACE(name);
    const std::string path =
        std::string(HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/") + name;
    const absl::StatusOr<ModelShape> shape = ReadModelShape(path);
    ASSERT_TRUE(shape.ok()) << shape.status();
    const int64_t all = Parameters(*shape, Layout(*shape));
    std::mt19937 random(7);
    for (int layer = 0; layer < shape->layers; ++layer) {
      HeadMask mask;
      for (int l = 0; l < shape->layers; ++l) {
        for (int head = 0;
             head < shape->heads[static_cast<size_t>(l)].query_heads; ++head) {
          if (l == layer || random() % 2 == 0) mask.pruned[l].insert(head);
        }
      }
      const absl::StatusOr<std::unique_ptr<Model>> model =
          Model::Load({.path = path, .mask = mask}, backend.get());
      ASSERT_TRUE(model.ok()) << model.status();
      const int64_t kept = Parameters(*shape, Layout(*shape, mask));
      EXPECT_EQ((*model)->pruned_weight_bytes(),
                WeightBytes(all - kept, shape->weight_type))
          << layer;
    }
  }
}

TEST(ModelShape, RefusesWhatItCannotReckon) {
  const auto error = [](const char* patch) {
    nlohmann::json config = nlohmann::json::parse(
        R"({"model_type": "gpt2", "n_embd": 96, "n_layer": 2, "n_head": 4,
            "n_positions": 64, "vocab_size": 100})");
    config.merge_patch(nlohmann::json::parse(patch));
    return std::string(ParseModelShape(config).status().message());
  };
  EXPECT_EQ(error("{}"), "");
  EXPECT_THAT(error(R"({"n_head": 7})"), HasSubstr("n_head: 7 does not"));
  EXPECT_THAT(error(R"({"n_layer": 0})"), HasSubstr("n_layer"));
  EXPECT_THAT(error(R"({"n_positions": null})"), HasSubstr("n_positions"));
  EXPECT_THAT(error(R"({"model_type": "mamba"})"), HasSubstr("model_type"));
  EXPECT_THAT(error(R"({"model_type": "falcon", "hidden_size": 64,
                        "new_decoder_architecture": true})"),
              HasSubstr("multi-query layout"));
}

}  // namespace
}  // namespace headcount
