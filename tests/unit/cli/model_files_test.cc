#include "cli/model_files.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/format/temp_folder.h"
#include "tests/unit/mailroom.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

constexpr char kSharded[] =
    HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/llama_gqa";

// A llama without a tokenizer: 2 layers of 4 and 2 query heads.
std::string SmallGguf(const std::string& architecture) {
  GgufWriter writer;
  writer.AddString("general.architecture", architecture);
  writer.AddInt("llama.block_count", 2);
  writer.AddInt("llama.embedding_length", 32);
  writer.AddInt("llama.feed_forward_length", 64);
  writer.AddInt("llama.context_length", 2048);
  writer.AddInts("llama.attention.head_count", {4, 2});
  writer.AddInt("llama.attention.head_count_kv", 2);
  writer.AddInt("llama.attention.key_length", 8);
  writer.AddFloat("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  writer.AddTensor("token_embd.weight", {32, 4}, 8, std::string(136, 'e'));
  writer.AddTensor("output_norm.weight", {32}, 0, std::string(128, 'n'));
  writer.AddTensor("old", {256}, 10, std::string(84, 'o'));
  return writer.File();
}

TEST(ModelFiles, SaysWhatAFolderHolds) {
  const ModelFiles files = ReadModelFiles(kMailroom);
  EXPECT_TRUE(files.problems.empty());
  EXPECT_EQ(files.format, "safetensors");
  ASSERT_EQ(files.types.size(), 1U);
  EXPECT_EQ(files.bytes, files.types[0].bytes);
  EXPECT_EQ(files.parameters * 2, files.bytes);
  const std::string text = RenderModelFiles(files);
  EXPECT_THAT(text, HasSubstr("llama, 6 layers"));
  EXPECT_THAT(text, HasSubstr("12 for queries, 4 for keys and values"));
  EXPECT_THAT(text, HasSubstr("3.0 KiB with all heads at 16 bits"));
  EXPECT_THAT(text, HasSubstr("tokenizer.json, "));
}

TEST(ModelFiles, SaysWhatAGgufFileHoldsAndWhatItLacks) {
  const TempFolder folder;
  const std::string path = folder.Write("small.gguf", SmallGguf("llama"));
  const ModelFiles files = ReadModelFiles(path);
  EXPECT_EQ(files.format, "GGUF");
  ASSERT_TRUE(files.config.has_value());
  ASSERT_EQ(files.types.size(), 3U);
  EXPECT_EQ(files.types[0].name, "Q8_0");
  EXPECT_EQ(files.types[1].name, "F32");
  EXPECT_EQ(files.types[2].name, "Q2_K");
  EXPECT_FALSE(files.types[2].computed_with);
  EXPECT_EQ(files.parameters, 128 + 32);
  EXPECT_EQ(files.bytes, 136 + 128 + 84);
  ASSERT_EQ(files.problems.size(), 1U) << "there is no tokenizer";

  const std::string text = RenderModelFiles(files);
  EXPECT_THAT(text, HasSubstr("2 to 4 for queries, 2 for keys and values"));
  // 4 KV heads x (K and V) x 8 x 2 bytes.
  EXPECT_THAT(text, HasSubstr("128 B with all heads at 16 bits"));
  EXPECT_THAT(text, HasSubstr("not supported"));
  EXPECT_THAT(text, HasSubstr("not served: " + path));
  const Json json = ModelFilesJson(files);
  EXPECT_EQ(json["kv_bytes_per_token"], 128);
  EXPECT_EQ(json["types"][2]["supported"], false);
  EXPECT_EQ(json["problems"].size(), 1U);
}

TEST(ModelFiles, SaysWhyAModelIsNotServed) {
  const TempFolder folder;
  const std::string path = folder.Write("small.gguf", SmallGguf("mamba"));
  const std::string text = RenderModelFiles(ReadModelFiles(path));
  EXPECT_THAT(text, HasSubstr("Q8_0"));
  EXPECT_THAT(text, HasSubstr("not served: " + path +
                              ": key 'general.architecture': \"mamba\" is not "
                              "served"));

  const std::string broken = folder.Write("broken.gguf", "GGUF");
  const ModelFiles files = ReadModelFiles(broken);
  EXPECT_EQ(files.format, "");
  EXPECT_EQ(files.problems.size(), 1U);
  EXPECT_THAT(RenderModelFiles(files), HasSubstr("4 bytes are too few"));

  const ModelFiles shards = ReadModelFiles(kSharded);
  EXPECT_EQ(shards.format, "safetensors");
  EXPECT_THAT(RenderModelFiles(shards), HasSubstr("not served: "))
      << "there is no tokenizer.json";
  const ModelFiles nothing = ReadModelFiles("/no/such/model");
  ASSERT_EQ(nothing.problems.size(), 1U);
  EXPECT_EQ(nothing.problems[0].message(), "/no/such/model does not exist");
}

}  // namespace
}  // namespace headcount
