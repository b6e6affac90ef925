// Random models of every head geometry: a gate of 0 is what pruning is.
#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gtest/gtest.h"
#include "tests/unit/model/checkpoint_writer.h"
#include "tests/unit/model/logits_rows.h"
#include "tests/unit/model/model_runner.h"

namespace headcount {
namespace {

constexpr int kGeometries = 200;
constexpr int kLayers = 3;
constexpr int kHidden = 32;
constexpr int kFfn = 48;
constexpr int kVocab = 64;
constexpr size_t kPrompt = 21;  // more than a block

using Random = std::mt19937;

int Draw(Random& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

WritableTensor RandomTensor(Random& random, std::vector<int64_t> shape,
                            float mean = 0) {
  WritableTensor tensor{
      .dtype = ElementType::kF32, .shape = std::move(shape), .data = ""};
  std::vector<float> values(static_cast<size_t>(tensor.rows() * tensor.cols()));
  std::normal_distribution<float> normal(mean, 0.2f);
  for (float& value : values) value = normal(random);
  tensor.data.resize(values.size() * sizeof(float));
  std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  return tensor;
}

// No heads, one KV head for all, one for each, or anything between.
LayerShape RandomShape(Random& random) {
  const int kind = Draw(random, 0, 9);
  if (kind == 0) return {0, 0};
  const int query_heads = Draw(random, 1, 8);
  if (kind <= 2) return {query_heads, 1};
  if (kind <= 4) return {query_heads, query_heads};
  std::vector<int> divisors;
  for (int i = 1; i <= query_heads; ++i) {
    if (query_heads % i == 0) divisors.push_back(i);
  }
  return {query_heads, divisors[static_cast<size_t>(Draw(
                           random, 0, static_cast<int>(divisors.size()) - 1))]};
}

struct Geometry {
  std::vector<LayerShape> layers = {};
  int head_dim = 0;
};

WritableModel RandomModel(Random& random, const Geometry& geometry) {
  WritableModel model;
  model.config = {{"architectures", {"LlamaForCausalLM"}},
                  {"model_type", "llama"},
                  {"hidden_act", "silu"},
                  {"hidden_size", kHidden},
                  {"intermediate_size", kFfn},
                  {"num_hidden_layers", kLayers},
                  {"head_dim", geometry.head_dim},
                  {"max_position_embeddings", 128},
                  {"rms_norm_eps", 1e-6},
                  {"rope_theta", 10000.0},
                  {"tie_word_embeddings", true},
                  {"vocab_size", kVocab}};
  auto& tensors = model.tensors;
  tensors["model.embed_tokens.weight"] =
      RandomTensor(random, {kVocab, kHidden});
  tensors["model.norm.weight"] = RandomTensor(random, {kHidden}, 1);
  for (int l = 0; l < kLayers; ++l) {
    const LayerShape& shape = geometry.layers[static_cast<size_t>(l)];
    model.config["num_attention_heads"].push_back(shape.query_heads);
    model.config["num_key_value_heads"].push_back(shape.kv_heads);
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    const auto add = [&](const std::string& name, std::vector<int64_t> sizes,
                         float mean = 0) {
      tensors[layer + name] = RandomTensor(random, std::move(sizes), mean);
    };
    add("post_attention_layernorm.weight", {kHidden}, 1);
    add("mlp.gate_proj.weight", {kFfn, kHidden});
    add("mlp.up_proj.weight", {kFfn, kHidden});
    add("mlp.down_proj.weight", {kHidden, kFfn});
    if (shape.query_heads == 0) continue;
    const int64_t q = int64_t{shape.query_heads} * geometry.head_dim;
    const int64_t kv = int64_t{shape.kv_heads} * geometry.head_dim;
    add("input_layernorm.weight", {kHidden}, 1);
    add("self_attn.q_proj.weight", {q, kHidden});
    add("self_attn.k_proj.weight", {kv, kHidden});
    add("self_attn.v_proj.weight", {kv, kHidden});
    add("self_attn.o_proj.weight", {kHidden, q});
  }
  return model;
}

TEST(RandomGeometry, GatesOfZeroEqualPruning) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  int pruned_heads = 0;
  int empty_layers = 0;
  for (uint32_t round = 0; round < kGeometries; ++round) {
    SCOPED_TRACE(round);
    Random random(round);
    Geometry geometry{.head_dim = 8 * Draw(random, 1, 4)};
    for (int l = 0; l < kLayers; ++l) {
      geometry.layers.push_back(RandomShape(random));
    }
    HeadMask mask;
    std::vector<float> gates;
    for (int l = 0; l < kLayers; ++l) {
      const int chance = Draw(random, 0, 4);  // of 4
      bool empty = true;
      for (int h = 0; h < geometry.layers[static_cast<size_t>(l)].query_heads;
           ++h) {
        const bool pruned = Draw(random, 1, 4) <= chance;
        if (pruned) mask.pruned[l].insert(h);
        gates.push_back(pruned ? 0.0f : 1.0f);
        pruned_heads += pruned ? 1 : 0;
        empty = empty && pruned;
      }
      empty_layers += empty ? 1 : 0;
    }
    const TemporaryDirectory folder;
    RandomModel(random, geometry).WriteTo(folder);
    const auto load = [&](const HeadMask& heads) {
      return ModelRunner(backend.get(), {.model = {.path = folder.path(),
                                                   .mask = heads,
                                                   .kv_dtype = KvDtype::kF32}});
    };
    std::vector<int32_t> ids(kPrompt);
    for (int32_t& id : ids) id = Draw(random, 0, kVocab - 1);
    const auto logits = [&ids](ModelRunner runner, std::vector<float> of) {
      ModelRunner::Sequence sequence;
      sequence.gates = std::move(of);
      return runner.Prefill(&sequence, ids, static_cast<int32_t>(ids.size()));
    };
    const std::vector<LogitsRow> want = logits(load(mask), {});
    EXPECT_LT(Furthest(logits(load({}), gates), want), 1e-4);
  }
  EXPECT_GT(pruned_heads, kGeometries);
  EXPECT_GT(empty_layers, kGeometries / 4);
}

}  // namespace
}  // namespace headcount
