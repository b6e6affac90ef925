// Repaired output projections: what stands in for what, and what is refused.
#include "model/output_repair.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/cpu/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/model.h"
#include "tests/unit/model/checkpoint_writer.h"
#include "tests/unit/model/model_runner.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

std::string TinyModel(const std::string& name) {
  return HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/" + name;
}

std::vector<float> FloatsOf(const WritableTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.rows() * tensor.cols()));
  Dequantize(tensor.dtype,
             reinterpret_cast<const std::byte*>(tensor.data.data()), 0,
             static_cast<int64_t>(values.size()), values.data());
  return values;
}

WritableTensor TensorOf(const std::vector<float>& values,
                        const std::vector<int64_t>& shape) {
  return {ElementType::kF32, shape,
          std::string(reinterpret_cast<const char*>(values.data()),
                      values.size() * sizeof(float))};
}

// A model in float32 whose mask file has a repair.
class Repaired {
 public:
  explicit Repaired(const std::string& name)
      : model_(WritableModel::ReadFrom(TinyModel(name))) {
    for (auto& [unused, tensor] : model_.tensors) {
      tensor = TensorOf(FloatsOf(tensor), tensor.shape);
    }
    model_.WriteTo(directory_);
    config_ = ReadModelConfig(directory_.path()).value();
    mask_.pruned[0] = {0, 3};
    const int heads = config_.heads[1].query_heads;
    for (int head = 0; head < heads; ++head) mask_.pruned[1].insert(head);
  }

  // The columns of the kept heads, as the model has them.
  WritableTensors Sliced() const {
    WritableTensors tensors;
    for (size_t l = 0; l < config_.heads.size(); ++l) {
      const WritableTensor& whole = model_.tensors.at(
          absl::StrCat("model.layers.", l, ".self_attn.o_proj.weight"));
      const std::vector<float> values = FloatsOf(whole);
      const std::vector<int> heads = Kept(l);
      std::vector<float> kept;
      for (int64_t row = 0; row < whole.rows(); ++row) {
        for (const int head : heads) {
          const auto first = values.begin() + row * whole.cols() +
                             int64_t{head} * config_.head_dim;
          kept.insert(kept.end(), first, first + config_.head_dim);
        }
      }
      if (heads.empty()) continue;
      tensors[absl::StrCat("layers.", l, ".o_proj.weight")] =
          TensorOf(kept, {whole.rows(), static_cast<int64_t>(heads.size()) *
                                            config_.head_dim});
    }
    return tensors;
  }

  std::vector<int> Kept(size_t layer) const {
    std::vector<int> kept;
    const auto pruned = mask_.pruned.find(static_cast<int>(layer));
    for (int head = 0; head < config_.heads[layer].query_heads; ++head) {
      if (pruned == mask_.pruned.end() || !pruned->second.contains(head)) {
        kept.push_back(head);
      }
    }
    return kept;
  }

  nlohmann::json MaskFile() const {
    nlohmann::json file = {
        {"format", "heads/1"},
        {"base",
         {{"arch", config_.architecture},
          {"layers", config_.layers},
          {"q_heads", config_.heads[0].query_heads},
          {"kv_heads", config_.heads[0].kv_heads},
          {"head_dim", config_.head_dim}}},
        {"layers",
         {{{"i", 0}, {"drop_q", {0, 3}}},
          {{"i", 1}, {"drop_attention", true}}}},
        {"repair", {{"kind", "ridge_wo"}, {"tensors", "repair.safetensors"}}}};
    return file;
  }

  ModelOptions With(const WritableTensors& repair,
                    const nlohmann::json& mask_file) const {
    directory_.Write("repair.safetensors", SafetensorsOf(repair));
    directory_.Write("heads.json", mask_file.dump());
    return {.path = directory_.path(),
            .mask_file = directory_.path() + "/heads.json",
            .kv_dtype = KvDtype::kF32};
  }
  ModelOptions With(const WritableTensors& repair) const {
    return With(repair, MaskFile());
  }
  ModelOptions Masked() const {
    return {
        .path = directory_.path(), .mask = mask_, .kv_dtype = KvDtype::kF32};
  }

  const ModelConfig& config() const { return config_; }
  const WritableModel& model() const { return model_; }

 private:
  TemporaryDirectory directory_;
  WritableModel model_;
  ModelConfig config_;
  HeadMask mask_;
};

const std::vector<int32_t> kIds = {5, 99, 17, 230, 4, 4, 61, 118, 3, 77};

std::vector<LogitsRow> LogitsOf(const ModelOptions& options) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  return ModelRunner(backend.get(), {.model = options}).RunAlone(kIds, 4);
}

TEST(OutputRepair, WithTheColumnsOfTheModelChangesNoBit) {
  for (const char* name : {"llama_gqa", "llama_bias", "qwen3"}) {
    SCOPED_TRACE(name);
    const Repaired repaired(name);
    EXPECT_EQ(LogitsOf(repaired.With(repaired.Sliced())),
              LogitsOf(repaired.Masked()));
  }
}

TEST(OutputRepair, OfSomeLayersLeavesTheOthersAlone) {
  const Repaired repaired("llama_gqa");
  WritableTensors tensors = repaired.Sliced();
  tensors.erase("layers.0.o_proj.weight");
  EXPECT_EQ(LogitsOf(repaired.With(tensors)), LogitsOf(repaired.Masked()));
}

// What the weights say of each token alone: without attention there is nothing
// else. out: [vocab]
std::vector<double> ScalarLogits(const Repaired& repaired, int32_t id,
                                 const std::vector<std::vector<float>>& bias) {
  const ModelConfig& config = repaired.config();
  const auto tensor = [&](const std::string& name) {
    return FloatsOf(repaired.model().tensors.at(name));
  };
  const auto product = [](const std::vector<float>& w,
                          const std::vector<double>& x) {
    std::vector<double> out(w.size() / x.size());
    for (size_t i = 0; i < w.size(); ++i) {
      out[i / x.size()] += w[i] * x[i % x.size()];
    }
    return out;
  };
  const auto normed = [&](std::vector<double> x, const std::string& name) {
    double square = 0;
    for (const double value : x) square += value * value;
    const double rms =
        std::sqrt(square / static_cast<double>(x.size()) + config.rms_epsilon);
    const std::vector<float> weight = tensor(name);
    for (size_t i = 0; i < x.size(); ++i) x[i] = x[i] / rms * weight[i];
    return x;
  };
  const auto hidden = static_cast<size_t>(config.hidden);
  const std::vector<float> embedding = tensor("model.embed_tokens.weight");
  const auto row = embedding.begin() + static_cast<std::ptrdiff_t>(
                                           static_cast<size_t>(id) * hidden);
  std::vector<double> x(row, row + static_cast<std::ptrdiff_t>(hidden));
  for (size_t l = 0; l < bias.size(); ++l) {
    const std::string prefix = absl::StrCat("model.layers.", l, ".");
    for (size_t i = 0; i < hidden; ++i) x[i] += bias[l][i];
    const std::vector<double> in =
        normed(x, prefix + "post_attention_layernorm.weight");
    std::vector<double> gate =
        product(tensor(prefix + "mlp.gate_proj.weight"), in);
    const std::vector<double> up =
        product(tensor(prefix + "mlp.up_proj.weight"), in);
    for (size_t i = 0; i < gate.size(); ++i) {
      gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    }
    const std::vector<double> down =
        product(tensor(prefix + "mlp.down_proj.weight"), gate);
    for (size_t i = 0; i < hidden; ++i) x[i] += down[i];
  }
  return product(config.tied_output ? embedding : tensor("lm_head.weight"),
                 normed(x, "model.norm.weight"));
}

TEST(OutputRepair, OfZerosLeavesItsBias) {
  const Repaired repaired("llama_gqa");  // has no biases of its own
  WritableTensors tensors = repaired.Sliced();
  const auto layers = repaired.config().heads.size();
  const auto hidden = static_cast<size_t>(repaired.config().hidden);
  std::vector<std::vector<float>> bias(layers, std::vector<float>(hidden));
  for (size_t l = 0; l < layers; ++l) {
    for (size_t i = 0; i < hidden; ++i) {
      bias[l][i] = 0.1f * static_cast<float>((i * 7 + l * 3) % 11) - 0.5f;
    }
    // Also where no head is left.
    tensors[absl::StrCat("layers.", l, ".o_proj.bias")] =
        TensorOf(bias[l], {repaired.config().hidden});
    if (repaired.Kept(l).empty()) continue;
    WritableTensor& weight =
        tensors.at(absl::StrCat("layers.", l, ".o_proj.weight"));
    weight.Fill(0, weight.rows(), 0, weight.cols(), 0);
  }
  const std::vector<LogitsRow> found = LogitsOf(repaired.With(tensors));
  ASSERT_EQ(found.size(), kIds.size());
  for (size_t row = 0; row < found.size(); ++row) {
    const std::vector<double> expected =
        ScalarLogits(repaired, kIds[row], bias);
    ASSERT_EQ(found[row].size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(found[row][i], expected[i], 1e-4) << row << ", " << i;
    }
  }
}

TEST(OutputRepair, CountsAsWeights) {
  const Repaired repaired("llama_gqa");
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  const auto masked = Model::Load(repaired.Masked(), backend.get()).value();
  WritableTensors tensors = repaired.Sliced();
  const auto same = Model::Load(repaired.With(tensors), backend.get()).value();
  EXPECT_EQ(same->weight_bytes(), masked->weight_bytes());
  EXPECT_EQ(same->pruned_weight_bytes(), masked->pruned_weight_bytes());
  tensors["layers.2.o_proj.bias"] = TensorOf(
      std::vector<float>(static_cast<size_t>(repaired.config().hidden), 1.0f),
      {repaired.config().hidden});
  const auto more = Model::Load(repaired.With(tensors), backend.get()).value();
  EXPECT_GE(more->weight_bytes(),
            masked->weight_bytes() + 4 * repaired.config().hidden);
  EXPECT_EQ(more->pruned_weight_bytes(), masked->pruned_weight_bytes());
}

TEST(OutputRepair, ThatDoesNotFitIsRefusedByName) {
  const Repaired repaired("llama_gqa");
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  const auto refusal =
      [&](const std::function<void(WritableTensors&)>& change) {
        WritableTensors tensors = repaired.Sliced();
        change(tensors);
        const auto model = Model::Load(repaired.With(tensors), backend.get());
        EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
        EXPECT_THAT(std::string(model.status().message()),
                    HasSubstr("repair.safetensors: "));
        return std::string(model.status().message());
      };
  const int64_t hidden = repaired.config().hidden;
  const int64_t width = repaired.config().head_dim *
                        static_cast<int64_t>(repaired.Kept(0).size());
  // As for another mask.
  EXPECT_THAT(
      refusal([&](WritableTensors& tensors) {
        tensors["layers.0.o_proj.weight"] = TensorOf(
            std::vector<float>(static_cast<size_t>(hidden * 8)), {hidden, 8});
      }),
      HasSubstr(absl::StrCat("tensor layers.0.o_proj.weight has shape [",
                             hidden,
                             ", 8], but the heads that are "
                             "kept imply [",
                             hidden, ", ", width, "]")));
  EXPECT_THAT(refusal([&](WritableTensors& tensors) {
                tensors["layers.1.o_proj.weight"] = TensorOf(
                    std::vector<float>(static_cast<size_t>(hidden * width)),
                    {hidden, width});
              }),
              HasSubstr(absl::StrCat(", ", width,
                                     "], but the heads that are "
                                     "kept imply [",
                                     hidden, ", 0]")));
  EXPECT_THAT(refusal([&](WritableTensors& tensors) {
                tensors["layers.2.o_proj.bias"] =
                    TensorOf(std::vector<float>(3), {3});
              }),
              HasSubstr("layers.2.o_proj.bias has shape [3], but"));
  EXPECT_THAT(refusal([&](WritableTensors& tensors) {
                WritableTensor& tensor = tensors.at("layers.0.o_proj.weight");
                tensor.dtype = ElementType::kBf16;
                tensor.data.resize(tensor.data.size() / 2);
              }),
              HasSubstr("layers.0.o_proj.weight is stored as BF16"));
  EXPECT_THAT(refusal([&](WritableTensors& tensors) {
                tensors["layers.99.o_proj.bias"] =
                    TensorOf(std::vector<float>(3), {3});
              }),
              HasSubstr("'layers.99.o_proj.bias' is not of a repair"));
  EXPECT_THAT(refusal([](WritableTensors& tensors) { tensors.clear(); }),
              HasSubstr("has no tensors"));
}

TEST(OutputRepair, IsForTheWeightsThatItsFileNames) {
  const Repaired repaired("llama_gqa");
  nlohmann::json file = repaired.MaskFile();
  file["base"]["sha256"] = std::string(64, '0');
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  const auto model =
      Model::Load(repaired.With(repaired.Sliced(), file), backend.get());
  EXPECT_THAT(std::string(model.status().message()),
              HasSubstr("base.sha256: made for weights 000"));
}

TEST(OutputRepair, AFileThatIsNotThereIsNamed) {
  const Repaired repaired("llama_gqa");
  nlohmann::json file = repaired.MaskFile();
  file["repair"]["tensors"] = "lost.safetensors";
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  const auto model =
      Model::Load(repaired.With(repaired.Sliced(), file), backend.get());
  EXPECT_EQ(model.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(model.status().message()),
              HasSubstr("lost.safetensors"));
}

TEST(OutputRepair, OfAVariantIsRefused) {
  const Repaired repaired("llama_gqa");
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  const ModelOptions options = repaired.With(repaired.Sliced());
  const auto base =
      Model::Load({.path = options.path, .kv_dtype = KvDtype::kF32},
                  backend.get())
          .value();
  const auto variant = base->MakeVariant(
      {.mask_file = options.mask_file, .kv_dtype = KvDtype::kF32});
  EXPECT_EQ(variant.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(variant.status().message()),
              HasSubstr("repair: a variant shares"));
}

}  // namespace
}  // namespace headcount
