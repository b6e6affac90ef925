#include "model/gguf_config.h"

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/format/gguf_writer.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr uint32_t kGgmlF32 = 0;

// The keys of a small model, one of which a test may set anew.
class SmallFile {
 public:
  SmallFile() {
    Text("general.architecture", "llama");
    Int("llama.block_count", 3);
    Int("llama.embedding_length", 96);
    Int("llama.feed_forward_length", 112);
    Int("llama.context_length", 512);
    Int("llama.attention.head_count", 6);
    Int("llama.attention.head_count_kv", 2);
    Float("llama.attention.layer_norm_rms_epsilon", 1e-5F);
    Tensor("token_embd.weight", {96, 320});
    Tensor("output.weight", {96, 320});
  }

  SmallFile& Int(const std::string& key, uint32_t value) {
    keys_[key] = GgufKey(key, kGgufUint32, Bytes(value));
    return *this;
  }
  SmallFile& Ints(const std::string& key, const std::vector<int32_t>& values) {
    std::string elements;
    for (const int32_t value : values) elements += Bytes(value);
    keys_[key] = GgufArrayKey(key, kGgufInt32, values.size(), elements);
    return *this;
  }
  SmallFile& Float(const std::string& key, float value) {
    keys_[key] = GgufKey(key, kGgufFloat32, Bytes(value));
    return *this;
  }
  SmallFile& Text(const std::string& key, const std::string& value) {
    keys_[key] = GgufKey(key, kGgufString, GgufText(value));
    return *this;
  }
  SmallFile& Bool(const std::string& key, bool value) {
    keys_[key] = GgufKey(key, kGgufBool, Bytes<uint8_t>(value ? 1 : 0));
    return *this;
  }
  SmallFile& Tensor(const std::string& name,
                    const std::vector<uint64_t>& dims) {
    tensors_[name] = dims;
    return *this;
  }
  SmallFile& Without(const std::string& name) {
    EXPECT_EQ(keys_.erase(name) + tensors_.erase(name), 1U) << name;
    return *this;
  }
  // Float tensors hold ones, these hold `value`.
  SmallFile& Value(float value) {
    value_ = value;
    return *this;
  }

  absl::StatusOr<ModelConfig> Parse() const {
    GgufWriter writer;
    for (const auto& [name, key] : keys_) writer.AddKey(key);
    for (const auto& [name, dims] : tensors_) {
      uint64_t elements = 1;
      for (const uint64_t dim : dims) elements *= dim;
      std::string data;
      for (uint64_t i = 0; i < elements; ++i) data += Bytes(value_);
      writer.AddTensor(name, dims, kGgmlF32, data);
    }
    const std::string bytes = writer.File();
    const absl::StatusOr<GgufFile> file = ParseGguf(
        {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
        "x.gguf");
    EXPECT_TRUE(file.ok()) << file.status();
    return ParseGgufConfig(*file);
  }

 private:
  std::map<std::string, std::string> keys_;
  std::map<std::string, std::vector<uint64_t>> tensors_;
  float value_ = 1;
};

TEST(GgufConfig, ReadsEveryKey) {
  const auto found = SmallFile()
                         .Int("llama.attention.key_length", 32)
                         .Int("llama.attention.value_length", 32)
                         .Int("llama.rope.dimension_count", 32)
                         .Float("llama.rope.freq_base", 500000)
                         .Int("tokenizer.ggml.bos_token_id", 1)
                         .Int("tokenizer.ggml.eos_token_id", 2)
                         .Int("tokenizer.ggml.eot_token_id", 7)
                         .Tensor("blk.1.attn_q.bias", {192})
                         .Tensor("blk.0.ffn_gate.bias", {112})
                         .Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->architecture, "llama");
  EXPECT_EQ(found->layers, 3);
  EXPECT_EQ(found->hidden, 96);
  EXPECT_THAT(found->ffn, ElementsAre(112, 112, 112));
  EXPECT_EQ(found->vocab, 320);
  EXPECT_EQ(found->head_dim, 32);
  EXPECT_EQ(found->max_context, 512);
  EXPECT_THAT(found->heads, ElementsAre(LayerShape{6, 2}, LayerShape{6, 2},
                                        LayerShape{6, 2}));
  EXPECT_EQ(found->rms_epsilon, static_cast<double>(1e-5F));
  EXPECT_TRUE(found->qkv_bias);
  EXPECT_FALSE(found->attention_out_bias);
  EXPECT_FALSE(found->qk_norm);
  EXPECT_TRUE(found->mlp_bias);
  EXPECT_FALSE(found->tied_output);
  EXPECT_EQ(found->bos_id, 1);
  EXPECT_THAT(found->eos_ids, ElementsAre(2, 7));
  EXPECT_EQ(found->rope.type, RopeType::kDefault);
  EXPECT_EQ(found->rope.theta, 500000);
  EXPECT_EQ(found->naming, WeightNaming::kGguf);
  EXPECT_TRUE(found->paired_rows);
}

TEST(GgufConfig, ReadsWidthsOfEveryLayer) {
  const auto found =
      SmallFile().Ints("llama.feed_forward_length", {112, 112, 96}).Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(found->ffn, ElementsAre(112, 112, 96));
  const auto without =
      SmallFile().Ints("llama.feed_forward_length", {112, 0, 96}).Parse();
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_THAT(without->ffn, ElementsAre(112, 0, 96));
}

// Planners that looked at layer 0 alone took such a model for one without a KV
// cache.
TEST(GgufConfig, HeadCountsMayBeginWithZero) {
  const auto found = SmallFile()
                         .Ints("llama.attention.head_count", {0, 6, 6})
                         .Ints("llama.attention.head_count_kv", {0, 2, 1})
                         .Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(found->heads, ElementsAre(LayerShape{0, 0}, LayerShape{6, 2},
                                        LayerShape{6, 1}));
  EXPECT_EQ(found->head_dim, 16);
}

TEST(GgufConfig, ReadsTheArchitectureWhoseLayersDiffer) {
  const auto found = SmallFile()
                         .Text("general.architecture", "deci")
                         .Int("deci.block_count", 3)
                         .Int("deci.embedding_length", 96)
                         .Ints("deci.feed_forward_length", {112, 96, 0})
                         .Int("deci.context_length", 512)
                         .Ints("deci.attention.head_count", {6, 3, 0})
                         .Ints("deci.attention.head_count_kv", {2, 1, 0})
                         .Int("deci.attention.key_length", 32)
                         .Float("deci.attention.layer_norm_rms_epsilon", 1e-5F)
                         .Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->architecture, "deci");
  EXPECT_TRUE(found->paired_rows);
  EXPECT_FALSE(found->qk_norm);
  EXPECT_THAT(found->heads, ElementsAre(LayerShape{6, 2}, LayerShape{3, 1},
                                        LayerShape{0, 0}));
  EXPECT_THAT(found->ffn, ElementsAre(112, 96, 0));
  EXPECT_EQ(found->head_dim, 32);
}

TEST(GgufConfig, HasTheDefaultsOfLlamaCpp) {
  const auto found = SmallFile()
                         .Without("llama.attention.head_count_kv")
                         .Without("output.weight")
                         .Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->head_dim, 96 / 6);
  EXPECT_EQ(found->heads[0], (LayerShape{6, 6}));
  EXPECT_EQ(found->rope.theta, 10000);
  EXPECT_FALSE(found->qkv_bias);
  EXPECT_FALSE(found->attention_out_bias);
  EXPECT_FALSE(found->mlp_bias);
  EXPECT_TRUE(found->tied_output);
  EXPECT_EQ(found->bos_id, -1);
  EXPECT_THAT(found->eos_ids, IsEmpty());
}

TEST(GgufConfig, HeadCountsMayDifferByLayer) {
  const auto found = SmallFile()
                         .Ints("llama.attention.head_count", {6, 0, 4})
                         .Ints("llama.attention.head_count_kv", {3, 0, 1})
                         .Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(found->heads, ElementsAre(LayerShape{6, 3}, LayerShape{0, 0},
                                        LayerShape{4, 1}));
  EXPECT_EQ(found->head_dim, 16);
}

TEST(GgufConfig, ReadsRopeScaling) {
  auto found = SmallFile().Float("llama.rope.scale_linear", 2).Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->rope.type, RopeType::kLinear);
  EXPECT_EQ(found->rope.factor, 2);

  SmallFile yarn;
  yarn.Text("llama.rope.scaling.type", "yarn")
      .Float("llama.rope.scaling.factor", 4)
      .Int("llama.rope.scaling.original_context_length", 128);
  found = yarn.Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->rope.type, RopeType::kYarn);
  EXPECT_EQ(found->rope.factor, 4);
  EXPECT_EQ(found->rope.original_max_positions, 128);
  EXPECT_EQ(found->rope.attention_factor, 0);  // from factor
  found = yarn.Float("llama.rope.scaling.attn_factor", 0.5F).Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_NEAR(found->rope.attention_factor, 0.5 * (1 + 0.1 * std::log(4.0)),
              1e-12);

  found = SmallFile().Tensor("rope_freqs.weight", {8}).Value(8).Parse();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->rope.divisors, std::vector<float>(8, 8.0F));
}

struct Refused {
  std::function<void(SmallFile&)> change;
  const char* said;
};

void ExpectRefused(const std::vector<Refused>& cases) {
  for (const Refused& refused : cases) {
    SCOPED_TRACE(refused.said);
    SmallFile file;
    refused.change(file);
    const absl::Status status = file.Parse().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), StartsWith("x.gguf: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(refused.said));
  }
}

using F = SmallFile;

TEST(GgufConfig, NamesTheKeyThatIsMissingOrOutOfRange) {
  ExpectRefused({
      {[](F& f) { f.Without("general.architecture"); },
       "has no key 'general.architecture'"},
      {[](F& f) { f.Int("general.architecture", 3); },
       "key 'general.architecture' is one integer, not a string"},
      {[](F& f) { f.Text("general.architecture", "mamba"); },
       "key 'general.architecture': \"mamba\" is not served; served: llama, "
       "deci, qwen2, qwen3"},
      {[](F& f) { f.Without("llama.block_count"); },
       "has no key 'llama.block_count'"},
      {[](F& f) { f.Text("llama.block_count", "3"); },
       "key 'llama.block_count' is one string, not an integer"},
      {[](F& f) { f.Int("llama.block_count", 0); },
       "key 'llama.block_count': 0 is out of range; must be 1 to 1024"},
      {[](F& f) { f.Int("llama.block_count", 1'000'000'000); },
       "key 'llama.block_count': 1000000000 is out of range"},
      {[](F& f) { f.Int("llama.embedding_length", 0); },
       "key 'llama.embedding_length': 0 is out of range"},
      {[](F& f) { f.Int("llama.feed_forward_length", UINT32_MAX); },
       "key 'llama.feed_forward_length': 4294967295 is out of range"},
      {[](F& f) { f.Int("llama.context_length", 0); },
       "key 'llama.context_length': 0 is out of range"},
      {[](F& f) { f.Float("llama.attention.layer_norm_rms_epsilon", 0); },
       "key 'llama.attention.layer_norm_rms_epsilon': 0 is out of range"},
      {[](F& f) {
         f.Float("llama.rope.freq_base",
                 std::numeric_limits<float>::quiet_NaN());
       },
       "key 'llama.rope.freq_base': nan is out of range"},
      {[](F& f) { f.Int("tokenizer.ggml.bos_token_id", 320); },
       "key 'tokenizer.ggml.bos_token_id': 320 is out of range; must be 0 to "
       "319"},
  });
}

TEST(GgufConfig, NamesHeadsThatAreImpossible) {
  const std::string heads = "llama.attention.head_count";
  ExpectRefused({
      {[&](F& f) { f.Int(heads, 0); }, "key 'llama.attention.head_count"},
      {[&](F& f) { f.Int(heads, 1U << 31); },
       "key 'llama.attention.head_count': 2147483648 is out of range; must be "
       "0 to 1024"},
      {[&](F& f) {
         f.Ints(heads, {6, 6});
       },
       "key 'llama.attention.head_count': has 2 numbers for 3 layers"},
      {[&](F& f) {
         f.Ints(heads, {6, -6, 6});
       },
       "key 'llama.attention.head_count': -6 is out of range"},
      {[](F& f) { f.Int("llama.attention.head_count_kv", 4); },
       "key 'llama.attention.head_count_kv': 4 does not divide "
       "attention.head_count 6 of layer 0"},
      {[](F& f) { f.Int("llama.attention.head_count_kv", 12); },
       "12 does not divide attention.head_count 6"},
      {[](F& f) {
         f.Ints("llama.attention.head_count_kv", {2, 0, 2});
       },
       "key 'llama.attention.head_count_kv': 0, but attention.head_count 6 of "
       "layer 1: a linear layer in place of attention is not supported"},
      {[&](F& f) { f.Int(heads, 10); },
       "key 'llama.attention.head_count': 10 does not divide embedding_length "
       "96"},
      {[](F& f) { f.Int("llama.attention.key_length", 15); },
       "key 'llama.attention.key_length': 15 must be an even number"},
      {[](F& f) { f.Int("llama.attention.value_length", 32); },
       "key 'llama.attention.value_length': 32 is not the head dimension, 16"},
      {[](F& f) { f.Int("llama.rope.dimension_count", 8); },
       "key 'llama.rope.dimension_count': 8 is not the head dimension, 16"},
  });
}

TEST(GgufConfig, NamesWhatIsNotSupported) {
  ExpectRefused({
      {[](F& f) { f.Int("llama.expert_count", 8); },
       "key 'llama.expert_count': a mixture of experts is not supported"},
      {[](F& f) { f.Bool("llama.attention.causal", false); },
       "key 'llama.attention.causal': attention to later tokens"},
      {[](F& f) { f.Text("llama.rope.scaling.type", "longrope"); },
       "key 'llama.rope.scaling.type': \"longrope\" is not supported"},
      {[](F& f) { f.Tensor("rope_freqs.weight", {16}); },
       "tensor rope_freqs.weight is F32 of shape [16], not F32 of [8]"},
      {[](F& f) { f.Tensor("rope_freqs.weight", {8}).Value(0); },
       "tensor rope_freqs.weight holds 0; must be greater than 0"},
      {[](F& f) { f.Without("token_embd.weight"); },
       "tensor token_embd.weight is missing"},
      {[](F& f) { f.Tensor("token_embd.weight", {96}); },
       "tensor token_embd.weight has shape [96], not one of up to 4194304 "
       "rows"},
  });
}

}  // namespace
}  // namespace headcount
