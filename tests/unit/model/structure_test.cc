// Leaving heads out is the same as zeroing their context vectors, and saves
// what the arithmetic says.
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gtest/gtest.h"
#include "tests/unit/model/checkpoint_writer.h"
#include "tests/unit/model/model_runner.h"
#include "tests/unit/model/reference_backend.h"

namespace headcount {
namespace {

// Biases and none, groups of 3, 1 and all, tied and untied output, windows,
// biases of Q, K and V only, norms of queries and keys.
constexpr const char* kModels[] = {
    "llama_bias",     "llama_gqa", "llama_mha_tied", "llama_mqa",
    "mistral_window", "qwen2",     "qwen3"};

std::string PathOf(const std::string& name) {
  return HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/" + name;
}

// Every layer loses each of its heads with a chance of 0 to 1; the one of
// `round` mod 4 loses all.
HeadMask RandomMask(const ModelConfig& config, uint32_t round) {
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

std::vector<int32_t> RandomPrompt(const ModelConfig& config, size_t length) {
  std::mt19937 random(static_cast<uint32_t>(length));
  std::vector<int32_t> ids(length);
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(random() % static_cast<uint64_t>(config.vocab));
  }
  return ids;
}

// Columns of Wo.
void ZeroPrunedColumns(const HeadMask& mask, int head_dim,
                       WritableModel* model) {
  for (const auto& [layer, heads] : mask.pruned) {
    WritableTensor& out = model->tensors.at(
        "model.layers." + std::to_string(layer) + ".self_attn.o_proj.weight");
    for (int head : heads) {
      out.Fill(0, out.rows(), int64_t{head} * head_dim, head_dim, 0);
    }
  }
}

// Everything that only pruned heads need becomes NaN.
void PoisonPruned(const HeadLayout& layout, WritableModel* model) {
  const int64_t dim = layout.head_dim();
  for (size_t i = 0; i < layout.layers().size(); ++i) {
    const LayerHeads& layer = layout.layers()[i];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    std::vector<bool> query_kept(static_cast<size_t>(layer.dense.query_heads));
    for (int head : layer.query_heads)
      query_kept[static_cast<size_t>(head)] = true;
    std::vector<bool> kv_kept(static_cast<size_t>(layer.dense.kv_heads));
    for (const KvHead& head : layer.kv_heads) {
      kv_kept[static_cast<size_t>(head.index)] = true;
    }
    for (const char* kind : {".weight", ".bias"}) {
      for (const char* name : {"q", "k", "v"}) {
        const auto tensor =
            model->tensors.find(prefix + "self_attn." + name + "_proj" + kind);
        if (tensor == model->tensors.end()) continue;
        const std::vector<bool>& kept = *name == 'q' ? query_kept : kv_kept;
        for (size_t head = 0; head < kept.size(); ++head) {
          if (kept[head]) continue;
          tensor->second.Fill(static_cast<int64_t>(head) * dim, dim, 0,
                              tensor->second.cols(), 0xFF);
        }
      }
    }
    WritableTensor& out = model->tensors.at(prefix + "self_attn.o_proj.weight");
    for (size_t head = 0; head < query_kept.size(); ++head) {
      if (query_kept[head]) continue;
      out.Fill(0, out.rows(), static_cast<int64_t>(head) * dim, dim, 0xFF);
    }
    if (layer.has_attention()) continue;
    for (const char* name :
         {"input_layernorm.weight", "self_attn.q_norm.weight",
          "self_attn.k_norm.weight"}) {
      const auto norm = model->tensors.find(prefix + name);
      if (norm == model->tensors.end()) continue;
      norm->second.Fill(0, norm->second.rows(), 0, 1, 0xFF);
    }
  }
}

// Elements of the file that the layout leaves out (research: two matrices of
// hidden x head_dim for each query and each KV head).
int64_t PrunedElements(const ModelConfig& config, const HeadLayout& layout) {
  const int64_t matrix = int64_t{config.hidden} * config.head_dim;
  const int64_t bias = config.qkv_bias ? config.head_dim : 0;
  const int64_t norms = config.qk_norm ? 2 * config.head_dim : 0;
  int64_t elements = 0;
  for (const LayerHeads& layer : layout.layers()) {
    const auto query_heads = static_cast<int64_t>(layer.query_heads.size());
    const auto kv_heads = static_cast<int64_t>(layer.kv_heads.size());
    elements += (layer.dense.query_heads - query_heads) * (2 * matrix + bias);
    elements += (layer.dense.kv_heads - kv_heads) * 2 * (matrix + bias);
    if (!layer.has_attention()) elements += config.hidden + norms;
  }
  return elements;
}

void ExpectSameBits(const std::vector<LogitsRow>& found,
                    const std::vector<LogitsRow>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t row = 0; row < found.size(); ++row) {
    ASSERT_EQ(found[row].size(), expected[row].size());
    EXPECT_EQ(std::memcmp(found[row].data(), expected[row].data(),
                          found[row].size() * sizeof(float)),
              0)
        << "row " << row;
  }
}

ModelRunner Load(Backend* backend, const std::string& path,
                 const HeadMask& mask) {
  return ModelRunner(
      backend,
      {.model = {.path = path, .mask = mask, .kv_dtype = KvDtype::kF32}});
}

TEST(Structure, EqualsZeroedOutputColumnsToTheBit) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  for (const char* name : kModels) {
    const WritableModel dense = WritableModel::ReadFrom(PathOf(name));
    for (uint32_t round = 0; round < 8; ++round) {
      SCOPED_TRACE(std::string(name) + ", mask " + std::to_string(round));
      const absl::StatusOr<ModelConfig> config = ReadModelConfig(PathOf(name));
      ASSERT_TRUE(config.ok()) << config.status();
      const HeadMask mask = RandomMask(*config, round);
      WritableModel zeroed = dense;
      ZeroPrunedColumns(mask, config->head_dim, &zeroed);
      TemporaryDirectory directory;
      zeroed.WriteTo(directory);
      const std::vector<int32_t> ids = RandomPrompt(*config, 50);
      ModelRunner pruned = Load(backend.get(), PathOf(name), mask);
      ModelRunner reference = Load(backend.get(), directory.path(), {});
      ExpectSameBits(pruned.RunAlone(ids, 50), reference.RunAlone(ids, 50));
    }
  }
}

TEST(Structure, NeverReadsWhatOnlyPrunedHeadsNeed) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  for (const char* name : kModels) {
    const WritableModel dense = WritableModel::ReadFrom(PathOf(name));
    for (uint32_t round = 0; round < 4; ++round) {
      SCOPED_TRACE(std::string(name) + ", mask " + std::to_string(round));
      const absl::StatusOr<ModelConfig> config = ReadModelConfig(PathOf(name));
      ASSERT_TRUE(config.ok()) << config.status();
      const HeadMask mask = RandomMask(*config, round);
      ModelRunner clean = Load(backend.get(), PathOf(name), mask);
      WritableModel poisoned = dense;
      PoisonPruned(clean.model().layout(), &poisoned);
      TemporaryDirectory directory;
      poisoned.WriteTo(directory);
      ModelRunner runner = Load(backend.get(), directory.path(), mask);
      const std::vector<int32_t> ids = RandomPrompt(*config, 20);
      ExpectSameBits(runner.RunAlone(ids, 20), clean.RunAlone(ids, 20));
    }
  }
}

TEST(Structure, SavesTheBytesOfPrunedHeads) {
  // Keeps weights as they are, without padding.
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  for (const char* name : kModels) {
    const ModelRunner dense = Load(backend.get(), PathOf(name), {});
    EXPECT_EQ(dense.model().pruned_weight_bytes(), 0);
    for (uint32_t round = 0; round < 8; ++round) {
      SCOPED_TRACE(std::string(name) + ", mask " + std::to_string(round));
      const HeadMask mask = RandomMask(dense.model().config(), round);
      const ModelRunner pruned = Load(backend.get(), PathOf(name), mask);
      const int64_t elements =
          PrunedElements(dense.model().config(), pruned.model().layout());
      EXPECT_EQ(pruned.model().pruned_weight_bytes(), 2 * elements);  // bf16
      EXPECT_EQ(dense.model().weight_bytes() - pruned.model().weight_bytes(),
                4 * elements);  // the reference keeps float32
      EXPECT_EQ(pruned.model().kv_bytes_per_token(),
                pruned.model().layout().kv_heads() *
                    pruned.model().layout().head_dim() * 2 * 4);
    }
  }
}

TEST(Structure, RunsWithoutAnyHead) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  for (const char* name : {"llama_bias", "llama_gqa"}) {
    HeadMask mask;
    for (int layer = 0; layer < 3; ++layer) {
      mask.pruned[layer] = {0, 1, 2, 3, 4, 5};
    }
    WritableModel zeroed = WritableModel::ReadFrom(PathOf(name));
    ZeroPrunedColumns(mask, 16, &zeroed);
    TemporaryDirectory directory;
    zeroed.WriteTo(directory);
    ModelRunner pruned = Load(backend.get(), PathOf(name), mask);
    ModelRunner reference = Load(backend.get(), directory.path(), {});
    EXPECT_TRUE(pruned.model().layout().groups().empty());
    EXPECT_EQ(pruned.model().kv_bytes_per_token(), 0);
    const std::vector<int32_t> ids = RandomPrompt(pruned.model().config(), 30);
    ExpectSameBits(pruned.RunAlone(ids, 7), reference.RunAlone(ids, 7));
  }
}

}  // namespace
}  // namespace headcount
