#include "model/variant.h"

#include <memory>
#include <string>

#include "backend/cpu/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/model/checkpoint_writer.h"
#include "tests/unit/model/model_runner.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const char kTiny[] = HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/";
const char kMailroom[] = HEADCOUNT_SOURCE_DIR "/models/mailroom";

class VariantTest : public ::testing::Test {
 protected:
  std::unique_ptr<Model> Load(const ModelOptions& options) {
    return Model::Load(options, backend_.get()).value();
  }
  static std::string Refusal(const Model& model,
                             const VariantOptions& options) {
    const absl::Status status = model.MakeVariant(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

  const std::unique_ptr<Backend> backend_ = CreateCpuBackend({.threads = 1});
};

TEST_F(VariantTest, HasPagesOnlyForItsHeads) {
  const auto model = Load({.path = kMailroom});
  VariantOptions options;
  options.mask.pruned = {{0, {0, 1, 2, 4}}};
  const auto variant = model->MakeVariant(options).value();
  EXPECT_EQ(variant->kv_bytes_per_token(),
            model->kv_bytes_per_token() / 24 * 23);
  // Groups of 3: what is left of the second is its first and last head.
  EXPECT_THAT(variant->slots()[0].query, ElementsAre(3, 5, 6, 7, 8, 9, 10, 11));
  EXPECT_THAT(variant->slots()[0].kv, ElementsAre(1, 2, 3));
  EXPECT_THAT(variant->slots()[1].kv, ElementsAre(0, 1, 2, 3));
}

TEST_F(VariantTest, OfAPrunedModelNamesSlotsOfItsWeights) {
  ModelOptions pruned{.path = kMailroom};
  pruned.mask.pruned = {{0, {0, 1, 2, 4}}};
  const auto model = Load(pruned);
  VariantOptions options;
  options.mask.pruned = {{0, {0, 1, 2, 4, 6, 7, 8}}};
  const auto variant = model->MakeVariant(options).value();
  EXPECT_THAT(variant->slots()[0].query, ElementsAre(0, 1, 5, 6, 7));
  EXPECT_THAT(variant->slots()[0].kv, ElementsAre(0, 2));
  EXPECT_EQ(model->MakeVariant({}).value()->kv_bytes_per_token(),
            model->kv_bytes_per_token());
}

TEST_F(VariantTest, RefusesAMaskThatDoesNotFit) {
  ModelOptions pruned{.path = kMailroom};
  pruned.mask.pruned = {{2, {4, 5}}};
  const auto model = Load(pruned);
  VariantOptions options;
  options.mask.pruned = {{2, {4, 6}}};
  EXPECT_EQ(Refusal(*model, options),
            "heads.pruned: layer 2, head 5 would run, but the base has pruned "
            "it; name it here too");
  options.mask.pruned = {{6, {0}}};
  EXPECT_THAT(Refusal(*model, options), HasSubstr("layer 6 does not exist"));
  options.mask.pruned = {{2, {4, 5, 12}}};
  EXPECT_THAT(Refusal(*model, options), HasSubstr("head 12 does not exist"));
}

TEST_F(VariantTest, TakesAMaskFileOnlyForTheWeightsItWasMadeFor) {
  const std::string half = std::string(kMailroom) + "/heads_half.json";
  EXPECT_EQ(Load({.path = kMailroom})
                ->MakeVariant({.mask_file = half})
                .value()
                ->kv_bytes_per_token(),
            1536);
  WritableModel other = WritableModel::ReadFrom(kMailroom);
  other.tensors.at("model.norm.weight").data[0] ^= 1;
  TemporaryDirectory directory;
  other.WriteTo(directory);
  EXPECT_THAT(
      Refusal(*Load({.path = directory.path()}), {.mask_file = half}),
      HasSubstr("heads_half.json: base.sha256: made for weights c4ed34e49afc"));
}

// The projection's bias is all that is left of a layer, alone or in company.
TEST_F(VariantTest, WithoutHeadsKeepsTheBiasOfTheOutput) {
  const std::string path = std::string(kTiny) + "llama_bias";
  VariantOptions options{.kv_dtype = KvDtype::kF32};
  for (int head = 0; head < 6; ++head) {
    for (int layer : {0, 2}) options.mask.pruned[layer].insert(head);
  }
  ModelRunner compact(backend_.get(), {.model = {.path = path,
                                                 .mask = options.mask,
                                                 .kv_dtype = KvDtype::kF32}});
  ModelRunner runner(backend_.get(),
                     {.model = {.path = path, .kv_dtype = KvDtype::kF32}});
  const size_t variant = runner.AddVariant(options);
  const std::vector<int32_t> ids = {5, 6, 7, 8, 9};
  const std::vector<LogitsRow> want = compact.RunAlone(ids, 5);
  EXPECT_EQ(runner.RunAlone(ids, 2, variant), want);
  EXPECT_EQ(runner.RunTogether({ids, ids}, {3, 2}, {variant})[0], want);
}

TEST_F(VariantTest, WithoutAnyHeadHasNoPages) {
  ModelRunner runner(backend_.get(),
                     {.model = {.path = std::string(kTiny) + "llama_gqa"}});
  VariantOptions options;
  for (int head = 0; head < 6; ++head) {
    for (int layer = 0; layer < 3; ++layer) {
      options.mask.pruned[layer].insert(head);
    }
  }
  const size_t variant = runner.AddVariant(options);
  EXPECT_EQ(runner.variant(variant).kv_bytes_per_token(), 0);
  ModelRunner compact(backend_.get(),
                      {.model = {.path = std::string(kTiny) + "llama_gqa",
                                 .mask = options.mask}});
  const std::vector<int32_t> ids = {5, 6, 7, 8, 9};
  EXPECT_EQ(runner.RunTogether({ids, ids}, {3, 5}, {variant})[0],
            compact.RunAlone(ids, 5));
}

}  // namespace
}  // namespace headcount
