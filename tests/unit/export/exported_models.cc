#include "tests/unit/export/exported_models.h"

#include <memory>
#include <random>

#include "backend/cpu/cpu_backend.h"
#include "tests/unit/text/tiny_tokenizer.h"

namespace headcount {

std::string TinyModel(const std::string& name) {
  return HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/" + name;
}

HeadMask RandomHeads(const ModelConfig& config, uint32_t round) {
  std::mt19937 random(round);
  HeadMask mask;
  for (int layer = 0; layer < config.layers; ++layer) {
    const auto chance = random() % 100;
    const int heads = config.heads[static_cast<size_t>(layer)].query_heads;
    for (int head = 0; head < heads; ++head) {
      if (random() % 100 < chance || static_cast<int>(round % 4) == layer) {
        mask.pruned[layer].insert(head);
      }
    }
  }
  return mask;
}

HeadMask RandomGroups(const ModelConfig& config, uint32_t round) {
  std::mt19937 random(round);
  HeadMask mask;
  for (int layer = 0; layer < config.layers; ++layer) {
    const LayerShape& shape = config.heads[static_cast<size_t>(layer)];
    const int group = shape.query_heads / shape.kv_heads;
    for (int kv = layer == 0 ? 1 : 0; kv < shape.kv_heads; ++kv) {
      if (random() % 2 == 0) continue;
      for (int i = 0; i < group; ++i) {
        mask.pruned[layer].insert(kv * group + i);
      }
    }
  }
  return mask;
}

std::vector<LogitsRow> LogitsOf(const std::string& path, const HeadMask& mask,
                                const std::string& mask_file) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  ModelRunner runner(backend.get(), {.model = {.path = path,
                                               .mask = mask,
                                               .mask_file = mask_file,
                                               .kv_dtype = KvDtype::kF32}});
  std::mt19937 random(40);
  std::vector<int32_t> ids(40);
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(
        random() % static_cast<uint64_t>(runner.model().config().vocab));
  }
  return runner.RunAlone(ids, 16);
}

WritableTensor Ramp(const std::vector<int64_t>& shape) {
  WritableTensor tensor{ElementType::kF32, shape, ""};
  for (int64_t i = 0; i < tensor.rows() * tensor.cols(); ++i) {
    const float value = static_cast<float>(i * 37 % 101 - 50) / 400.0F;
    tensor.data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return tensor;
}

std::string MaskFileWithRepair(const std::string& name,
                               const WritableTensors& repair,
                               const TemporaryDirectory& folder) {
  const ModelConfig config = ReadModelConfig(TinyModel(name)).value();
  folder.Write("repair.safetensors", SafetensorsOf(repair));
  const nlohmann::json file = {
      {"format", "heads/1"},
      {"base",
       {{"arch", config.architecture},
        {"layers", config.layers},
        {"q_heads", config.heads[0].query_heads},
        {"kv_heads", config.heads[0].kv_heads},
        {"head_dim", config.head_dim}}},
      {"layers",
       {{{"i", 0}, {"drop_q", {0, 3}}}, {{"i", 1}, {"drop_attention", true}}}},
      {"repair", {{"kind", "ridge_wo"}, {"tensors", "repair.safetensors"}}}};
  folder.Write("heads.json", file.dump());
  return folder.path() + "/heads.json";
}

ModelWithTokenizer::ModelWithTokenizer(const std::string& name)
    : ModelWithTokenizer(WritableModel::ReadFrom(TinyModel(name))) {}

ModelWithTokenizer::ModelWithTokenizer(const WritableModel& model) {
  WritableModel with_ends = model;
  with_ends.config["bos_token_id"] = 261;
  with_ends.config["eos_token_id"] = 262;
  with_ends.WriteTo(folder_);
  folder_.Write("tokenizer.json", TinyTokenizerJson().dump());
}

}  // namespace headcount
