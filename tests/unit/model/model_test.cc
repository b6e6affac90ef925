#include "model/model.h"

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/model/checkpoint_writer.h"
#include "tests/unit/model/model_runner.h"
#include "tests/unit/model/reference_backend.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

const char kTiny[] = HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/";
const char kMailroom[] = HEADCOUNT_SOURCE_DIR "/models/mailroom";

absl::Status LoadStatus(const ModelOptions& options) {
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  return Model::Load(options, backend.get()).status();
}

TEST(ModelLoad, NamesTheTensorThatIsMissingOrOfAnotherShape) {
  const WritableModel model =
      WritableModel::ReadFrom(std::string(kTiny) + "llama_bias");
  const struct {
    std::function<void(WritableModel&)> change;
    const char* said;
  } kCases[] = {
      {[](WritableModel& m) { m.tensors.erase("model.norm.weight"); },
       "tensor model.norm.weight is missing; config.json implies one of shape "
       "[96]"},
      {[](WritableModel& m) {
         m.tensors.erase("model.layers.2.self_attn.k_proj.bias");
       },
       "tensor model.layers.2.self_attn.k_proj.bias is missing"},
      {[](WritableModel& m) { m.tensors.erase("lm_head.weight"); },
       "tensor lm_head.weight is missing"},
      {[](WritableModel& m) { m.config["vocab_size"] = 256; },
       "tensor model.embed_tokens.weight has shape [320, 96], but config.json "
       "implies [256, 96]"},
      {[](WritableModel& m) { m.config["num_key_value_heads"] = 6; },
       "tensor model.layers.0.self_attn.k_proj.weight has shape [32, 96], but "
       "config.json implies [96, 96]"},
      {[](WritableModel& m) { m.config["head_dim"] = 32; },
       "tensor model.layers.0.self_attn.q_proj.weight has shape [96, 96], but "
       "config.json implies [192, 96]"},
      {[](WritableModel& m) { m.config["num_hidden_layers"] = 4; },
       "tensor model.layers.3.input_layernorm.weight is missing"},
      {[](WritableModel& m) {
         m.tensors.at("model.layers.1.mlp.up_proj.bias").shape = {1, 112};
       },
       "tensor model.layers.1.mlp.up_proj.bias has shape [1, 112], but "
       "config.json implies [112]"},
      // The mask does not excuse a tensor that is wrong.
      {[](WritableModel& m) {
         m.config["pruned_heads"]["0"] = {0, 1, 2, 3, 4, 5};
         m.tensors.erase("model.layers.0.self_attn.o_proj.weight");
       },
       "tensor model.layers.0.self_attn.o_proj.weight is missing"},
  };
  for (const auto& expected : kCases) {
    WritableModel changed = model;
    expected.change(changed);
    TemporaryDirectory directory;
    changed.WriteTo(directory);
    const absl::Status status = LoadStatus({.path = directory.path()});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(directory.path() + ": " + expected.said));
  }
}

TEST(ModelLoad, IgnoresTensorsThatItDoesNotKnow) {
  WritableModel model =
      WritableModel::ReadFrom(std::string(kTiny) + "llama_mqa");
  model.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
      ElementType::kF32, {1}, std::string(4, '\0')};
  model.tensors["lm_head.weight"] = {
      ElementType::kF32, {1}, std::string(4, '\0')};  // tied: not used
  TemporaryDirectory directory;
  model.WriteTo(directory);
  EXPECT_TRUE(LoadStatus({.path = directory.path()}).ok());
}

TEST(ModelLoad, RefusesAMaskThatDoesNotFitTheModel) {
  ModelOptions options{.path = kMailroom};
  options.mask.pruned[7] = {0};
  EXPECT_THAT(std::string(LoadStatus(options).message()),
              HasSubstr("heads.pruned: layer 7 does not exist; the model has 6 "
                        "layers (0-5)"));
  options.mask.pruned = {{3, {12}}};
  EXPECT_THAT(std::string(LoadStatus(options).message()),
              HasSubstr("heads.pruned: layer 3, head 12 does not exist; the "
                        "layer has 12 query heads (0-11)"));
}

TEST(ModelLoad, NamesTheDirectoryThatIsNotThere) {
  const absl::Status status = LoadStatus({.path = "/no/such/model"});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such/model"));
}

TEST(ModelLoad, TakesAMaskFileOnlyForTheWeightsItWasMadeFor) {
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  const std::string mask_file = std::string(kMailroom) + "/heads_half.json";
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load({.path = kMailroom, .mask_file = mask_file}, backend.get());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->kv_bytes_per_token(), 1536);
  EXPECT_EQ((*model)->sha256(),
            "c4ed34e49afcb26a5e9ec5a6c0a4674146e354465fbe60b8b2e6a3e73f4040ee");

  WritableModel other = WritableModel::ReadFrom(kMailroom);
  other.tensors.at("model.norm.weight").data[0] ^= 1;
  TemporaryDirectory directory;
  other.WriteTo(directory);
  const absl::Status status =
      LoadStatus({.path = directory.path(), .mask_file = mask_file});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(status.message()),
      HasSubstr("heads_half.json: base.sha256: made for weights c4ed34"));
}

TEST(ModelLoad, ReadsNoHashWhereNoMaskFileNamesOne) {
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  const auto model = Model::Load({.path = kMailroom}, backend.get());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->sha256(), "");
  EXPECT_EQ((*model)->kv_bytes_per_token(), 3072);
  EXPECT_GT((*model)->workspace_bytes(), 0);
}

TEST(ModelLoad, JoinsTheMasksOfAllSources) {
  WritableModel model =
      WritableModel::ReadFrom(std::string(kTiny) + "llama_gqa");
  model.config["pruned_heads"]["0"] = {0};
  TemporaryDirectory directory;
  model.WriteTo(directory);
  directory.Write("heads.json", R"({
    "format": "heads/1",
    "base": {"arch": "llama", "layers": 3, "q_heads": 6, "kv_heads": 2,
             "head_dim": 16},
    "layers": [{"i": 0, "drop_q": [1]}]})");
  ModelOptions options{.path = directory.path(),
                       .mask_file = directory.path() + "/heads.json"};
  options.mask.pruned[0] = {2};
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  const auto joined = Model::Load(options, backend.get());
  ASSERT_TRUE(joined.ok()) << joined.status();
  const LayerHeads& layer = (*joined)->layout().layers()[0];
  EXPECT_EQ(layer.query_heads, (std::vector<int>{3, 4, 5}));
  EXPECT_EQ(layer.kv_heads.size(), 1u);
}

TEST(ModelForward, ComputesLogitsOnlyForRowsAskedFor) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  ModelRunner runner(backend.get(),
                     {.model = {.path = std::string(kTiny) + "llama_gqa"}});
  const std::vector<int32_t> a = {5, 6, 7, 8, 9};
  const std::vector<int32_t> b = {300, 1, 2};
  const std::vector<int32_t> c = {11, 12};
  const std::vector<LogitsRow> all_a = runner.RunAlone(a, 5);
  const std::vector<LogitsRow> all_c = runner.RunAlone(c, 2);
  ModelRunner::Sequence sequences[3];
  const std::vector<LogitsRow> some = runner.Step(
      {{&sequences[0], a, 2}, {&sequences[1], b, 0}, {&sequences[2], c, 1}});
  ASSERT_EQ(some.size(), 3u);
  EXPECT_EQ(some[0], all_a[3]);
  EXPECT_EQ(some[1], all_a[4]);
  EXPECT_EQ(some[2], all_c[1]);
  EXPECT_TRUE(runner.Step({{&sequences[1], c, 0}}).empty());
}

TEST(ModelForwardDeathTest, RefusesStepsThatDoNotFit) {
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  ModelRunner runner(backend.get(),
                     {.model = {.path = std::string(kTiny) + "llama_gqa",
                                .max_step_tokens = 4,
                                .max_logits_rows = 2}});
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5};
  const std::vector<int32_t> outside = {320};
  ModelRunner::Sequence sequence;
  EXPECT_DEATH(runner.Step({{&sequence, ids, 1}}), "5 tokens in a step of 4");
  EXPECT_DEATH(runner.Step({{&sequence, absl::MakeSpan(ids).first(4), 3}}),
               "3 logits rows, at most 2");
  EXPECT_DEATH(runner.Step({{&sequence, outside, 1}}), "token 320");
}

// The furthest distance of two rows, in standard deviations of the second.
double Distance(const LogitsRow& found, const LogitsRow& expected) {
  double furthest = 0;
  double squares = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    furthest = std::max(furthest,
                        std::fabs(static_cast<double>(found[i]) - expected[i]));
    squares += static_cast<double>(expected[i]) * expected[i];
  }
  return furthest / std::sqrt(squares / static_cast<double>(expected.size()));
}

TEST(ModelForward, AgreesWithTheReferenceBackend) {
  const std::unique_ptr<Backend> cpu = CreateCpuBackend({});
  const std::unique_ptr<Backend> reference = CreateReferenceBackend();
  // Rounding may fall either way where values are close: by a step of 2^-11 in
  // f16, by one of 1/7 of the largest element in int4.
  const struct KvDtypesCase {
    KvDtype dtype;
    KvHeadRules heads;
    double tolerance;
  } kDtypes[] = {
      {KvDtype::kF32, {}, 2e-5},
      {KvDtype::kF16, {}, 5e-3},
      {KvDtype::kBf16, {}, 2e-2},
      {KvDtype::kFp8E4m3, {}, 1e-1},
      {KvDtype::kInt8, {}, 1e-1},
      {KvDtype::kInt4, {}, 5e-1},
      {KvDtype::kInt8,
       {{0, {{1, {KvDtype::kF16}}}}, {1, {{0, {KvDtype::kInt4}}}}},
       5e-1},
      // Streaming heads beside full ones in a layer, the rest of it alone.
      {KvDtype::kF16,
       {{0, {{1, {.retention = Retention{.window = 9, .sink = 16}}}}},
        {1, {{0, {.retention = Retention{.window = 20}}}}}},
       5e-3},
  };
  const HeadMask masks[] = {
      {}, {{{0, {0, 2}}, {1, {0, 1, 2}}}}, {{{1, {0, 1, 2, 3, 4, 5}}}}};
  for (const char* name :
       {"llama_gqa", "llama_bias", "llama_rope_yarn", "llama_rope_llama3"}) {
    for (const HeadMask& mask : masks) {
      for (const KvDtypesCase& dtypes : kDtypes) {
        const ModelRunnerOptions options{
            .model = {.path = std::string(kTiny) + name,
                      .mask = mask,
                      .kv_dtype = dtypes.dtype,
                      .kv_head_rules = dtypes.heads}};
        ModelRunner fast(cpu.get(), options);
        ModelRunner plain(reference.get(), options);
        std::vector<std::vector<int32_t>> prompts(3);
        for (int32_t i = 0; i < 120; ++i) {
          prompts[static_cast<size_t>(i % 3)].push_back((i * 37 + 11) % 320);
          if (i < 40) prompts[1].push_back((i * i) % 320);
        }
        const auto found = fast.RunTogether(prompts, {40, 3, 1});
        const auto expected = plain.RunTogether(prompts, {40, 3, 1});
        for (size_t p = 0; p < prompts.size(); ++p) {
          ASSERT_EQ(found[p].size(), prompts[p].size());
          for (size_t row = 0; row < found[p].size(); ++row) {
            ASSERT_LE(Distance(found[p][row], expected[p][row]),
                      dtypes.tolerance)
                << name << ", " << KvDtypeName(dtypes.dtype) << ", prompt " << p
                << ", row " << row;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace headcount
