#include "format/checkpoint.h"

#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/format/safetensors_writer.h"
#include "tests/unit/format/temp_folder.h"

namespace headcount {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kMailroom[] = HEADCOUNT_SOURCE_DIR "/models/mailroom";
constexpr char kSharded[] =
    HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/llama_gqa";

std::string Bytes(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.data.data()),
          tensor.data.size()};
}

Checkpoint OpenOrDie(const std::string& path) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

TEST(CheckpointTest, ReadsWhatWasWritten) {
  SafetensorsWriter writer;
  writer.Add("weights", "F32", "2, 3",
             std::string("\0\x01 24 bytes of float32!", 24));
  writer.Add("half", "F16", "3", "abcdef");
  writer.Add("brain", "BF16", "1, 1, 2", "ghij");
  const TempFolder folder;
  const std::string path = folder.Write("any.name", writer.File());
  const Checkpoint checkpoint = OpenOrDie(path);

  EXPECT_EQ(checkpoint.tensors().size(), 3U);
  EXPECT_EQ(checkpoint.tensor_bytes(), 24 + 6 + 4);
  const TensorView* weights = checkpoint.Find("weights");
  ASSERT_NE(weights, nullptr);
  EXPECT_EQ(weights->dtype, ElementType::kF32);
  EXPECT_THAT(weights->shape, ElementsAre(2, 3));
  EXPECT_EQ(Bytes(*weights), std::string("\0\x01 24 bytes of float32!", 24));
  const TensorView* half = checkpoint.Find("half");
  ASSERT_NE(half, nullptr);
  EXPECT_EQ(half->dtype, ElementType::kF16);
  EXPECT_EQ(Bytes(*half), "abcdef");
  const TensorView* brain = checkpoint.Find("brain");
  ASSERT_NE(brain, nullptr);
  EXPECT_EQ(brain->dtype, ElementType::kBf16);
  EXPECT_THAT(brain->shape, ElementsAre(1, 1, 2));
  EXPECT_EQ(Bytes(*brain), "ghij");
  EXPECT_EQ(checkpoint.Find("weight"), nullptr);
}

TEST(CheckpointTest, TensorsMayBeInAnyOrderEmptyOrScalar) {
  const TempFolder folder;
  const std::string path = folder.Write(
      "model.safetensors",
      SafetensorsFile(
          R"({"b":{"data_offsets":[4,8],"shape":[2],"dtype":"BF16"},)"
          R"("empty":{"dtype":"F32","shape":[7,0],"data_offsets":[4,4]},)"
          R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
          R"("last":{"dtype":"F16","shape":[0],"data_offsets":[8,8]}}   )",
          8));
  const Checkpoint checkpoint = OpenOrDie(path);
  EXPECT_THAT(checkpoint.Find("scalar")->shape, IsEmpty());
  EXPECT_EQ(checkpoint.Find("scalar")->data.size(), 4U);
  EXPECT_THAT(checkpoint.Find("empty")->shape, ElementsAre(7, 0));
  EXPECT_TRUE(checkpoint.Find("empty")->data.empty());
  EXPECT_TRUE(checkpoint.Find("last")->data.empty());
  EXPECT_EQ(checkpoint.Find("b")->data.data(),
            checkpoint.Find("scalar")->data.data() + 4);
}

TEST(CheckpointTest, AFileMayHoldNoTensor) {
  const TempFolder folder;
  folder.Write("model.safetensors", SafetensorsFile("{}", 0));
  EXPECT_TRUE(OpenOrDie(folder.path().string()).tensors().empty());
}

TEST(CheckpointTest, TypesThatAreNotComputedWithAreCheckedAndLeftOut) {
  SafetensorsWriter writer;
  writer.Add("f32", "F32", "1", "1234");
  for (const char* byte_type : {"BOOL", "U8", "I8", "F8_E4M3", "F8_E4M3FNUZ",
                                "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"}) {
    writer.Add(byte_type, byte_type, "4", "1234");
  }
  for (const char* type : {"I16", "U16"}) writer.Add(type, type, "2", "1234");
  for (const char* type : {"I32", "U32"}) writer.Add(type, type, "1", "1234");
  for (const char* type : {"I64", "U64", "F64", "C64"}) {
    writer.Add(type, type, "1", "12345678");
  }
  writer.Add("F4", "F4", "2, 3", "123");
  for (const char* type : {"F6_E2M3", "F6_E3M2"}) {
    writer.Add(type, type, "4", "123");
  }
  const TempFolder folder;
  folder.Write("model.safetensors", writer.File());
  const Checkpoint checkpoint = OpenOrDie(folder.path().string());
  EXPECT_EQ(checkpoint.tensors().size(), 1U);
  EXPECT_EQ(checkpoint.tensor_bytes(), 4);
  EXPECT_EQ(checkpoint.Find("I64"), nullptr);
  ASSERT_EQ(checkpoint.unread().size(), 19U);
  EXPECT_EQ(checkpoint.unread().at("I64").type_name, "I64");
  EXPECT_EQ(checkpoint.unread().at("I64").bytes, 8);
}

TEST(CheckpointTest, MetadataMayBeLargeAndIsDropped) {
  std::string header = R"({"__metadata__":{)";
  for (int i = 0; i < 100'000; ++i) {
    absl::StrAppend(&header, "\"key", i, "\":\"some text of no interest\",");
  }
  header += R"("last":"one"},"t":{"dtype":"F16","shape":[1],)"
            R"("data_offsets":[0,2]}})";
  const TempFolder folder;
  folder.Write("model.safetensors", SafetensorsFile(header, 2));
  EXPECT_EQ(OpenOrDie(folder.path().string()).tensors().size(), 1U);
}

TEST(CheckpointTest, TensorsAreCounted) {
  std::string header = "{";
  const auto add = [&header](int i) {
    absl::StrAppend(&header, header.size() == 1 ? "" : ",", "\"", i,
                    R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})");
  };
  for (int i = 0; i < 65'536; ++i) add(i);
  const TempFolder folder;
  const std::string path = folder.Write("a", SafetensorsFile(header + "}", 0));
  EXPECT_EQ(OpenOrDie(path).tensors().size(), 65'536U);

  add(65'536);
  folder.Write("a", SafetensorsFile(header + "}", 0));
  const absl::Status status = Checkpoint::Open(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("more than 65536 tensors"));
}

TEST(CheckpointTest, ReadsAGgufFileAsItIs) {
  GgufWriter writer;
  writer.AddTensor("blk.0.attn_q.weight", {32, 2}, 8, std::string(68, 'q'));
  writer.AddTensor("output_norm.weight", {2}, 0, "12345678");
  writer.AddTensor("old", {256}, 10, std::string(84, 'x'));
  const TempFolder folder;
  const std::string path = folder.Write("model.gguf", writer.File());
  for (const std::string& name : {path, folder.path().string()}) {
    const Checkpoint checkpoint = OpenOrDie(name);
    EXPECT_EQ(checkpoint.tensors().size(), 2U);
    EXPECT_EQ(checkpoint.tensor_bytes(), 68 + 8);
    const TensorView* query = checkpoint.Find("blk.0.attn_q.weight");
    ASSERT_NE(query, nullptr);
    EXPECT_EQ(query->dtype, ElementType::kQ8_0);
    EXPECT_THAT(query->shape, ElementsAre(2, 32));
    EXPECT_EQ(Bytes(*query), std::string(68, 'q'));
    EXPECT_EQ(checkpoint.Find("old"), nullptr);
    EXPECT_EQ(checkpoint.unread().at("old").type_name, "Q2_K");
    EXPECT_EQ(checkpoint.unread().at("old").bytes, 84);
  }
}

TEST(CheckpointTest, APartOfAGgufModelIsRefused) {
  GgufWriter writer;
  writer.AddInt("split.count", 3);
  const TempFolder folder;
  const std::string path = folder.Write("m-00001-of-00003.gguf", writer.File());
  EXPECT_THAT(std::string(Checkpoint::Open(path).status().message()),
              HasSubstr("key 'split.count': one of 3 parts of a model"));
}

TEST(CheckpointTest, WhatIsNotThereIsNotFound) {
  const TempFolder folder;
  const auto code = [](const std::string& path) {
    return Checkpoint::Open(path).status().code();
  };
  EXPECT_EQ(code(folder.path().string()), absl::StatusCode::kNotFound);
  EXPECT_EQ(code((folder.path() / "x").string()), absl::StatusCode::kNotFound);
  EXPECT_EQ(code(""), absl::StatusCode::kNotFound);
  EXPECT_EQ(code(kMailroom + std::string("\0/x", 3)),
            absl::StatusCode::kInvalidArgument);
}

TEST(CheckpointTest, APipeIsRefusedAndNotWaitedFor) {
  const TempFolder folder;
  const std::string pipe = (folder.path() / "model.safetensors").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(Checkpoint::Open(pipe).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CheckpointTest, ViewsStayValidWhenTheCheckpointMoves) {
  Checkpoint first = OpenOrDie(kMailroom);
  const TensorView before = *first.Find("model.norm.weight");
  const Checkpoint second = std::move(first);
  EXPECT_EQ(second.Find("model.norm.weight")->data.data(), before.data.data());
  EXPECT_EQ(Bytes(before).size(), 384U);
}

// The figures of the two tests below are from Python's json and hashlib.
TEST(CheckpointTest, ReadsTheMailroomModel) {
  const Checkpoint checkpoint = OpenOrDie(kMailroom);
  EXPECT_EQ(checkpoint.tensors().size(), 56U);
  EXPECT_EQ(checkpoint.tensor_bytes(), 6'689'664);
  const TensorView* embedding = checkpoint.Find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->dtype, ElementType::kF16);
  EXPECT_THAT(embedding->shape, ElementsAre(2048, 192));
  EXPECT_EQ(checkpoint.Sha256().value(),
            "c4ed34e49afcb26a5e9ec5a6c0a4674146e354465fbe60b8b2e6a3e73f4040ee");
}

TEST(CheckpointTest, ReadsShardsAsOneModel) {
  const Checkpoint checkpoint = OpenOrDie(kSharded);
  EXPECT_EQ(checkpoint.tensors().size(), 30U);
  EXPECT_EQ(checkpoint.tensor_bytes(), 465'216);
  const TensorView* keys =
      checkpoint.Find("model.layers.1.self_attn.k_proj.weight");
  ASSERT_NE(keys, nullptr);
  EXPECT_EQ(keys->dtype, ElementType::kBf16);
  EXPECT_THAT(keys->shape, ElementsAre(32, 96));

  // The same tensor as the shard itself has it.
  const Checkpoint shard =
      OpenOrDie(absl::StrCat(kSharded, "/model-00004-of-00010.safetensors"));
  EXPECT_EQ(Bytes(*keys),
            Bytes(*shard.Find("model.layers.1.self_attn.k_proj.weight")));
  EXPECT_EQ(checkpoint.Sha256().value(),
            "0cdb93ea6cc5d08ebfc88aa3968b61ad86b6884cc79cf19e545d3de4d1479a31");
}

TEST(CheckpointTest, AShardMayBeALinkInsideTheDirectory) {
  const TempFolder folder;
  SafetensorsWriter writer;
  writer.Add("t", "F16", "2", "abcd");
  std::filesystem::create_directory(folder.path() / "blobs");
  folder.Write("blobs/1", writer.File());
  std::filesystem::create_symlink("blobs/1", folder.path() / "a.safetensors");
  folder.Write("model.safetensors.index.json",
               R"({"weight_map":{"t":"a.safetensors"}})");
  EXPECT_EQ(Bytes(*OpenOrDie(folder.path().string()).Find("t")), "abcd");
}

}  // namespace
}  // namespace headcount
