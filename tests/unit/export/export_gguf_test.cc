// An exported GGUF file is the model with its mask, and what GGUF cannot say is
// refused.
#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "format/gguf.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/export/exported_models.h"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/model/logits_rows.h"
#include "tests/unit/text/tiny_tokenizer.h"
#include "text/tokenizer.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

ExportReport ExportOrDie(const std::string& path, const HeadMask& mask,
                         const std::string& out) {
  absl::StatusOr<ExportReport> report =
      Export({.source = {.path = path, .mask = mask},
              .out = out,
              .format = ExportFormat::kGguf});
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *std::move(report) : ExportReport();
}

TEST(ExportGguf, GivesTheLogitsOfTheMask) {
  // llama3's rule is stored as float32 divisors, which rounds once more.
  for (const char* name :
       {"llama_bias", "llama_gqa", "llama_mha_tied", "llama_rope_linear",
        "llama_rope_llama3", "llama_rope_yarn", "qwen2"}) {
    const ModelWithTokenizer model(name);
    const ModelConfig config = ReadModelConfig(model.path()).value();
    for (uint32_t round = 0; round < 4; ++round) {
      SCOPED_TRACE(absl::StrCat(name, ", mask ", round));
      HeadMask mask = RandomGroups(config, round);
      if (config.attention_out_bias) {
        // A layer that adds a bias keeps a group.
        for (auto& [layer, heads] : mask.pruned) heads.erase(5);
        for (auto& [layer, heads] : mask.pruned) heads.erase(4);
        for (auto& [layer, heads] : mask.pruned) heads.erase(3);
      }
      const TemporaryDirectory folder;
      const std::string out = folder.path() + "/out.gguf";
      const ExportReport report = ExportOrDie(model.path(), mask, out);
      EXPECT_THAT(report.notes, IsEmpty());
      EXPECT_LT(Furthest(LogitsOf(out), LogitsOf(model.path(), mask)),
                std::string(name) == "llama_rope_llama3" ? 1e-4 : 1e-30);
    }
  }
}

TEST(ExportGguf, IsAnArchitectureThatHasHeadsByLayerOnlyWhereItHasTo) {
  const ModelWithTokenizer llama("llama_gqa");
  const ModelWithTokenizer qwen2("qwen2");
  const ModelWithTokenizer qwen3("qwen3");
  const HeadMask one = {{{1, {0, 1, 2}}}};
  const HeadMask all = {{{0, {0, 1, 2}}, {1, {3, 4, 5}}, {2, {0, 1, 2}}}};
  // Of its two groups of two.
  const HeadMask all_of_qwen2 = {{{0, {0, 1}}, {1, {2, 3}}, {2, {0, 1}}}};
  const TemporaryDirectory folder;
  const std::string out = folder.path() + "/out.gguf";
  const auto architecture = [&](const ModelWithTokenizer& model,
                                const HeadMask& mask) {
    std::filesystem::remove(out);
    return ExportOrDie(model.path(), mask, out).architecture;
  };
  EXPECT_EQ(architecture(llama, {}), "llama");
  EXPECT_EQ(architecture(llama, all), "llama");
  EXPECT_EQ(architecture(llama, one), "deci");
  EXPECT_EQ(architecture(qwen3, all), "qwen3");
  EXPECT_EQ(architecture(qwen2, all_of_qwen2), "qwen2");
  EXPECT_EQ(architecture(qwen2, {{{1, {0, 1}}}}), "deci");
}

TEST(ExportGguf, OfAGgufFileKeepsItsKeysAndBlocks) {
  const ModelWithTokenizer model("qwen2");
  const TemporaryDirectory folder;
  const std::string whole = folder.path() + "/whole.gguf";
  ExportOrDie(model.path(), {}, whole);
  const HeadMask mask = {{{0, {0, 1}}, {1, {0, 1, 2, 3}}}};
  const std::string out = folder.path() + "/out.gguf";
  ExportOrDie(whole, mask, out);
  const GgufFile file = OpenGguf(out).value();
  EXPECT_EQ(file.metadata.String("general.architecture").value(), "deci");
  EXPECT_EQ(file.metadata.String("general.name").value(), "whole");
  EXPECT_THAT(file.metadata.Ints("deci.attention.head_count").value(),
              ElementsAre(2, 0, 4));
  EXPECT_THAT(file.metadata.Ints("deci.attention.head_count_kv").value(),
              ElementsAre(1, 0, 2));
  EXPECT_EQ(file.metadata.Int("deci.attention.key_length").value(), 24);
  for (const TensorEntry& tensor : file.tensors) {
    EXPECT_THAT(tensor.name, Not(HasSubstr("blk.1.attn")));
    if (tensor.shape.size() > 1) continue;
    EXPECT_EQ(tensor.type_name, "F32") << tensor.name;
  }
  EXPECT_TRUE(SameBits(LogitsOf(out), LogitsOf(model.path(), mask)));
}

TEST(ExportGguf, HasTheTokenizer) {
  const ModelWithTokenizer model("llama_gqa");
  const TemporaryDirectory folder;
  const std::string out = folder.path() + "/out.gguf";
  ExportOrDie(model.path(), {}, out);
  const Tokenizer from = Tokenizer::Load(model.path()).value();
  const Tokenizer to = Tokenizer::Load(out).value();
  for (const char* text :
       {"the aaaa theory", "\xC3\xA9t\xC3\xA9 <|eos|>", ""}) {
    EXPECT_EQ(to.Encode(text), from.Encode(text)) << text;
  }
  EXPECT_EQ(to.prefix(), from.prefix());
  EXPECT_EQ(to.specials(), from.specials());
  const GgufFile file = OpenGguf(out).value();
  EXPECT_THAT(file.metadata.Strings("tokenizer.ggml.tokens").value(),
              SizeIs(320));
  EXPECT_EQ(file.metadata.Int("tokenizer.ggml.eos_token_id").value(), 262);
}

// One layer, 4 query heads and 2 KV heads of 64 in a hidden size of 256, whose
// output projection has blocks of `block` elements; all else is float32.
struct QuantizedModel {
  explicit QuantizedModel(uint32_t type, size_t block_bytes, size_t block);
  TemporaryDirectory folder;
  std::string path;
};

QuantizedModel::QuantizedModel(uint32_t type, size_t block_bytes,
                               size_t block) {
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddInt("llama.block_count", 1);
  writer.AddInt("llama.embedding_length", 256);
  writer.AddInt("llama.feed_forward_length", 32);
  writer.AddInt("llama.context_length", 128);
  writer.AddFloat("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  writer.AddInt("llama.attention.head_count", 4);
  writer.AddInt("llama.attention.head_count_kv", 2);
  const auto floats = [&](const char* name, const std::vector<uint64_t>& dims) {
    uint64_t count = 1;
    for (const uint64_t dim : dims) count *= dim;
    std::string data;
    for (uint64_t i = 0; i < count; ++i) {
      data += Bytes(static_cast<float>(i * 31 % 67) / 300.0F - 0.1F);
    }
    writer.AddTensor(name, dims, 0, data);
  };
  floats("token_embd.weight", {256, 40});
  floats("output_norm.weight", {256});
  floats("blk.0.attn_norm.weight", {256});
  floats("blk.0.attn_q.weight", {256, 256});
  floats("blk.0.attn_k.weight", {256, 128});
  floats("blk.0.attn_v.weight", {256, 128});
  floats("blk.0.ffn_norm.weight", {256});
  floats("blk.0.ffn_gate.weight", {256, 32});
  floats("blk.0.ffn_up.weight", {256, 32});
  floats("blk.0.ffn_down.weight", {32, 256});
  std::string data;
  for (size_t i = 0; i < 256 * 256 / block; ++i) {
    std::string bytes(block_bytes, '\x11');
    bytes[bytes.size() - 1] = static_cast<char>(i * 7 % 16);
    bytes.replace(0, 4, std::string("\x00\x18\x00\x14", 4));  // half scales
    data += bytes;
  }
  writer.AddTensor("blk.0.attn_output.weight", {256, 256}, type, data);
  path = folder.path() + "/model.gguf";
  folder.Write("model.gguf", writer.File());
}

constexpr uint32_t kQ4_1 = 3;
constexpr uint32_t kQ4K = 12;

const TensorEntry& OutputOf(const GgufFile& file) {
  for (const TensorEntry& tensor : file.tensors) {
    if (tensor.name == "blk.0.attn_output.weight") return tensor;
  }
  ADD_FAILURE();
  return file.tensors.front();
}

TEST(ExportGguf, CutsQuantizedColumnsWhereBlocksEnd) {
  const QuantizedModel model(kQ4_1, 20, 32);
  const HeadMask mask = {{{0, {0, 1}}}};
  const std::string out = model.folder.path() + "/out.gguf";
  const ExportReport report = ExportOrDie(model.path, mask, out);
  EXPECT_THAT(report.notes, IsEmpty());
  const GgufFile file = OpenGguf(out).value();
  EXPECT_EQ(OutputOf(file).type_name, "Q4_1");
  EXPECT_EQ(OutputOf(file).shape, (std::vector<int64_t>{256, 128}));
  // The last four blocks of eight in each row.
  const GgufFile source = OpenGguf(model.path).value();
  EXPECT_EQ(OutputOf(file).data.subspan(80, 80),
            OutputOf(source).data.subspan(160 + 80, 80));
  EXPECT_TRUE(SameBits(LogitsOf(out), LogitsOf(model.path, mask)));
}

TEST(ExportGguf, SaysWhereBlocksHadToBecomeFloats) {
  const QuantizedModel model(kQ4K, 144, 256);
  const std::string out = model.folder.path() + "/out.gguf";
  const ExportReport report = ExportOrDie(model.path, {{{0, {0, 1}}}}, out);
  EXPECT_THAT(report.notes,
              ElementsAre(HasSubstr("tensor blk.0.attn_output.weight is "
                                    "written as F16: heads of 64 columns cut "
                                    "through the blocks of 256 of Q4_K")));
  const GgufFile file = OpenGguf(out).value();
  const GgufFile source = OpenGguf(model.path).value();
  EXPECT_EQ(OutputOf(file).type_name, "F16");
  std::vector<float> want(256);
  std::vector<float> found(128);
  for (int64_t row = 0; row < 256; ++row) {
    Dequantize(ElementType::kQ4_K, OutputOf(source).data.data() + row * 144, 0,
               256, want.data());
    Dequantize(ElementType::kF16, OutputOf(file).data.data() + row * 256, 0,
               128, found.data());
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found[i], want[128 + i], std::abs(want[128 + i]) / 2048);
    }
  }
}

struct Refused {
  const char* model;
  HeadMask mask;
  const char* said;
};

TEST(ExportGguf, RefusesWhatItCannotSayNamingLayerAndReason) {
  const std::set<int> all = {0, 1, 2, 3, 4, 5};
  const Refused kCases[] = {
      {"llama_gqa",
       {{{1, {4}}}},
       "layer 1: GGUF has as many query heads for each KV head of a layer, but "
       "of those kept, KV head 0 serves 3, 1 serves 2"},
      {"llama_gqa", {{{0, all}}}, "layer 0: it keeps no head"},
      {"llama_bias",
       {{{2, all}}},
       "layer 2: it keeps no head, but its output "
       "projection has a bias"},
      {"mistral_window", {}, "layer 0: it sees the last"},
      {"qwen3", {{{1, {0, 1, 2}}}}, "norms of queries and keys"},
  };
  for (const Refused& refused : kCases) {
    SCOPED_TRACE(refused.said);
    const ModelWithTokenizer model(refused.model);
    const std::string out = model.path() + "/out.gguf";
    const absl::Status status =
        Export({.source = {.path = model.path(), .mask = refused.mask},
                .out = out,
                .format = ExportFormat::kGguf})
            .status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(refused.said));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("--format safetensors can"));
    EXPECT_FALSE(std::filesystem::exists(out));
  }
}

TEST(ExportGguf, FoldsARepairIntoTheWeights) {
  const ModelWithTokenizer model("llama_gqa");
  WritableTensors repair = {{"layers.0.o_proj.weight", Ramp({96, 4 * 16})},
                            {"layers.0.o_proj.bias", Ramp({96})}};
  const std::string mask_file =
      MaskFileWithRepair("llama_gqa", repair, model.folder());
  ExportOptions options{
      .source = {.path = model.path(), .mask_file = mask_file},
      .out = model.path() + "/out.gguf",
      .format = ExportFormat::kGguf};
  const absl::StatusOr<ExportReport> report = Export(options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->architecture, "deci");
  // By name: beside safetensors no GGUF file is looked for.
  EXPECT_TRUE(
      SameBits(LogitsOf(options.out), LogitsOf(model.path(), {}, mask_file)));

  // Layer 1 keeps no head.
  repair["layers.1.o_proj.bias"] = Ramp({96});
  MaskFileWithRepair("llama_gqa", repair, model.folder());
  options.force = true;
  EXPECT_THAT(std::string(Export(options).status().message()),
              HasSubstr("layer 1: it keeps no head, but its output projection "
                        "has a bias"));
}

TEST(ExportGguf, RefusesALayerWhoseAttentionLlamaCppWouldLeaveOut) {
  WritableModel model = WritableModel::ReadFrom(TinyModel("llama_gqa"));
  model.config["intermediate_size"] = {112, 0, 112};
  const ModelWithTokenizer files(model);
  const absl::Status status = Export({.source = {.path = files.path()},
                                      .out = files.path() + "/out.gguf",
                                      .format = ExportFormat::kGguf})
                                  .status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("layer 1: it has no feed-forward network"));
}

TEST(ExportGguf, RefusesATokenizerThatLlamaCppHasNoNameFor) {
  nlohmann::json digits = TinyTokenizerJson();
  digits["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Digits"}, {"individual_digits", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}};
  nlohmann::json two = TinyTokenizerJson();
  two["post_processor"]["special_tokens"]["<|bos|>"]["ids"] = {261, 262};
  const std::pair<nlohmann::json, const char*> kCases[] = {
      {digits, "pre_tokenizer: llama.cpp has no name for it"},
      {two, "post_processor: GGUF has one bos token"},
      {TinyFallbackTokenizerJson(), "model.byte_fallback: true"}};
  for (const auto& [tokenizer, said] : kCases) {
    SCOPED_TRACE(said);
    const ModelWithTokenizer model("llama_gqa");
    model.folder().Write("tokenizer.json", tokenizer.dump());
    const absl::Status status = Export({.source = {.path = model.path()},
                                        .out = model.path() + "/out.gguf",
                                        .format = ExportFormat::kGguf})
                                    .status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(said));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("--format safetensors keeps tokenizer.json"));
  }
}

TEST(ExportGguf, RefusesSafetensorsOfAGgufFile) {
  const QuantizedModel model(kQ4_1, 20, 32);
  const absl::Status status = Export({.source = {.path = model.path},
                                      .out = model.folder.path() + "/out"})
                                  .status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("a GGUF model is exported as GGUF"));
}

}  // namespace
}  // namespace headcount
