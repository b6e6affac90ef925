// Weights from which the heads of `pruned_heads` are gone already, as Hugging
// Face wrote them, and those that still hold them.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/cpu/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/model/checkpoint_writer.h"
#include "tests/unit/model/logits_rows.h"
#include "tests/unit/model/model_runner.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

const std::vector<int32_t> kIds = {5, 99, 17, 230, 4, 4, 61, 118, 3, 77};

std::string TinyModel(const std::string& name) {
  return HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/" + name;
}

std::vector<LogitsRow> LogitsOf(const std::string& path, const HeadMask& mask) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  return ModelRunner(
             backend.get(),
             {.model = {.path = path, .mask = mask, .kv_dtype = KvDtype::kF32}})
      .RunAlone(kIds, 4);
}

// Takes rows out, `width` for each of `gone`.
void CutRows(const std::vector<int>& gone, int64_t width,
             WritableTensor* tensor) {
  const auto row = static_cast<int64_t>(tensor->data.size()) / tensor->rows();
  for (auto head = gone.rbegin(); head != gone.rend(); ++head) {
    tensor->data.erase(static_cast<size_t>(*head * width * row),
                       static_cast<size_t>(width * row));
    tensor->shape[0] -= width;
  }
}

void CutColumns(const std::vector<int>& gone, int64_t width,
                WritableTensor* tensor) {
  const int64_t element = ElementBytes(tensor->dtype, 1);
  const int64_t cols = tensor->cols();
  for (int64_t i = tensor->rows(); i-- > 0;) {
    for (auto head = gone.rbegin(); head != gone.rend(); ++head) {
      tensor->data.erase(
          static_cast<size_t>((i * cols + *head * width) * element),
          static_cast<size_t>(width * element));
    }
  }
  tensor->shape[1] -= static_cast<int64_t>(gone.size()) * width;
}

// Layer 0 of llama_bias (6 query heads, 2 KV heads of 16) without heads 0 to 2
// and 4, in config.json and in the weights.
WritableModel SlicedModel() {
  WritableModel model = WritableModel::ReadFrom(TinyModel("llama_bias"));
  model.config["pruned_heads"] = {{"0", {0, 1, 2, 4}}};
  const std::string prefix = "model.layers.0.self_attn.";
  for (const char* suffix : {".weight", ".bias"}) {
    CutRows({0, 1, 2, 4}, 16,
            &model.tensors.at(absl::StrCat(prefix, "q_proj", suffix)));
    for (const char* name : {"k_proj", "v_proj"}) {
      CutRows({0}, 16, &model.tensors.at(absl::StrCat(prefix, name, suffix)));
    }
  }
  CutColumns({0, 1, 2, 4}, 16, &model.tensors.at(prefix + "o_proj.weight"));
  return model;
}

TEST(SlicedWeights, AreTheWholeOnesWithTheMask) {
  const TemporaryDirectory directory;
  SlicedModel().WriteTo(directory);
  const std::vector<LogitsRow> sliced = LogitsOf(directory.path(), {});
  EXPECT_TRUE(SameBits(
      sliced, LogitsOf(TinyModel("llama_bias"), {{{0, {0, 1, 2, 4}}}})));

  WritableModel whole = WritableModel::ReadFrom(TinyModel("llama_bias"));
  whole.config["pruned_heads"] = {{"0", {0, 1, 2, 4}}};
  const TemporaryDirectory unsliced;
  whole.WriteTo(unsliced);
  EXPECT_TRUE(SameBits(sliced, LogitsOf(unsliced.path(), {})));
}

// A mask keeps to the numbers of the unpruned model.
TEST(SlicedWeights, LoseMoreHeadsToAMask) {
  const TemporaryDirectory directory;
  SlicedModel().WriteTo(directory);
  EXPECT_TRUE(SameBits(
      LogitsOf(directory.path(), {{{0, {3}}, {1, {5}}}}),
      LogitsOf(TinyModel("llama_bias"), {{{0, {0, 1, 2, 3, 4}}, {1, {5}}}})));
  EXPECT_TRUE(
      SameBits(LogitsOf(directory.path(), {{{0, {3, 5}}}}),
               LogitsOf(TinyModel("llama_bias"), {{{0, {0, 1, 2, 3, 4, 5}}}})));
}

// Nothing but the bias of the output projection is left of such a layer.
TEST(SlicedWeights, MayLackTheAttentionOfALayer) {
  const HeadMask mask = {{{1, {0, 1, 2, 3, 4, 5}}}};
  WritableModel model = WritableModel::ReadFrom(TinyModel("llama_bias"));
  const std::string prefix = "model.layers.1.";
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    for (const char* suffix : {".weight", ".bias"}) {
      model.tensors.erase(absl::StrCat(prefix, "self_attn.", name, suffix));
    }
  }
  model.tensors.erase(prefix + "self_attn.o_proj.weight");
  model.tensors.erase(prefix + "input_layernorm.weight");
  WritableModel listed = model;
  model.config["pruned_heads"] = {{"1", {0, 1, 2, 3, 4, 5}}};
  listed.config["num_attention_heads"] = {6, 0, 6};
  listed.config["num_key_value_heads"] = {2, 0, 2};
  listed.config["head_dim"] = 16;
  for (const WritableModel& sliced : {model, listed}) {
    const TemporaryDirectory directory;
    sliced.WriteTo(directory);
    EXPECT_TRUE(SameBits(LogitsOf(directory.path(), {}),
                         LogitsOf(TinyModel("llama_bias"), mask)))
        << sliced.config;
  }
}

TEST(SlicedWeights, HaveToBeSlicedAlike) {
  WritableModel model = SlicedModel();
  const WritableModel whole = WritableModel::ReadFrom(TinyModel("llama_bias"));
  const std::string name = "model.layers.0.self_attn.v_proj.weight";
  model.tensors[name] = whole.tensors.at(name);
  const TemporaryDirectory directory;
  model.WriteTo(directory);
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  const absl::Status status =
      Model::Load({.path = directory.path()}, backend.get()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(name + " has shape [32, 96], but config.json implies "
                               "[16, 96]"));
}

}  // namespace
}  // namespace headcount
