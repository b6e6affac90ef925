#include "format/gguf.h"

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/format/temp_folder.h"

namespace headcount {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string MessageOf(const absl::Status& status) {
  return std::string(status.message());
}

TEST(GgufTest, ReadsValuesOfEveryType) {
  GgufWriter writer;
  writer.AddKey(GgufKey("u8", kGgufUint8, Bytes<uint8_t>(255)));
  writer.AddKey(GgufKey("i8", kGgufInt8, Bytes<int8_t>(-128)));
  writer.AddKey(GgufKey("u16", kGgufUint16, Bytes<uint16_t>(65535)));
  writer.AddKey(GgufKey("i16", kGgufInt16, Bytes<int16_t>(-2)));
  writer.AddInt("u32", 4294967295);
  writer.AddKey(GgufKey("i32", kGgufInt32, Bytes<int32_t>(-3)));
  writer.AddKey(GgufKey("u64", kGgufUint64,
                        Bytes<uint64_t>(std::numeric_limits<int64_t>::max())));
  writer.AddKey(
      GgufKey("i64", kGgufInt64, Bytes(std::numeric_limits<int64_t>::min())));
  writer.AddFloat("f32", 0.5F);
  writer.AddKey(GgufKey("f64", kGgufFloat64, Bytes(0.1)));
  writer.AddBool("yes", true);
  writer.AddBool("no", false);
  writer.AddString("text", std::string("a\0b", 3));
  writer.AddInts("ints", {3, -1});
  writer.AddStrings("texts", {"", "xyz"});
  writer.AddKey(
      GgufArrayKey("floats", kGgufFloat32, 2, Bytes(1.0F) + Bytes(-0.25F)));
  const std::string bytes = writer.File();
  const auto file = ParseGguf(AsBytes(bytes), "file");
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufMetadata& keys = file->metadata;

  EXPECT_EQ(*keys.Int("u8"), 255);
  EXPECT_EQ(*keys.Int("i8"), -128);
  EXPECT_EQ(*keys.Int("u16"), 65535);
  EXPECT_EQ(*keys.Int("i16"), -2);
  EXPECT_EQ(*keys.Int("u32"), 4294967295);
  EXPECT_EQ(*keys.Int("i32"), -3);
  EXPECT_EQ(*keys.Int("u64"), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(*keys.Int("i64"), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(*keys.Number("f32"), 0.5);
  EXPECT_EQ(*keys.Number("f64"), 0.1);
  EXPECT_EQ(*keys.Number("i16"), -2);
  EXPECT_TRUE(*keys.Bool("yes"));
  EXPECT_FALSE(*keys.Bool("no"));
  EXPECT_EQ(*keys.String("text"), std::string("a\0b", 3));
  EXPECT_THAT(*keys.Ints("ints"), ElementsAre(3, -1));
  EXPECT_THAT(*keys.Ints("u8"), ElementsAre(255));
  EXPECT_THAT(*keys.Numbers("ints"), ElementsAre(3, -1));
  EXPECT_THAT(*keys.Numbers("floats"), ElementsAre(1, -0.25));
  EXPECT_THAT(*keys.Strings("texts"), ElementsAre("", "xyz"));
  EXPECT_TRUE(keys.Has("u8"));
  EXPECT_FALSE(keys.Has("u9"));
}

TEST(GgufTest, AnAbsentKeyOrAnotherTypeIsNamed) {
  GgufWriter writer;
  writer.AddString("text", "x");
  writer.AddInts("ints", {1, 2});
  writer.AddBool("yes", true);
  writer.AddKey(GgufKey("big", kGgufUint64, Bytes<uint64_t>(1ULL << 63)));
  const std::string bytes = writer.File();
  const auto file = ParseGguf(AsBytes(bytes), "file");
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufMetadata& keys = file->metadata;

  EXPECT_TRUE(absl::IsNotFound(keys.Int("none").status()));
  EXPECT_EQ(MessageOf(keys.Int("none").status()), "file: has no key 'none'");
  EXPECT_EQ(MessageOf(keys.Int("text").status()),
            "file: key 'text' is one string, not an integer");
  EXPECT_EQ(MessageOf(keys.Int("ints").status()),
            "file: key 'ints' is an array of 2 integers, not an integer");
  EXPECT_EQ(MessageOf(keys.String("ints").status()),
            "file: key 'ints' is an array of 2 integers, not a string");
  EXPECT_EQ(MessageOf(keys.Strings("yes").status()),
            "file: key 'yes' is one boolean, not an array of strings");
  EXPECT_EQ(MessageOf(keys.Number("yes").status()),
            "file: key 'yes' is one boolean, not a number");
  EXPECT_EQ(MessageOf(keys.Bool("text").status()),
            "file: key 'text' is one string, not a boolean");
  EXPECT_EQ(MessageOf(keys.Int("big").status()),
            "file: key 'big': 9223372036854775808 is too large");
  EXPECT_EQ(*keys.Number("big"), 0x1p63);
}

TEST(GgufTest, ReadsTensorsInBothVersions) {
  GgufWriter writer;
  writer.AddTensor("f32", {3, 2}, 0, std::string(24, 'a'));
  writer.AddTensor("q8_0", {64, 2, 1}, 8, std::string(136, 'b'));
  writer.AddTensor("scalar", {}, 0, "cccc");
  writer.AddTensor("q2_k", {256}, 10, std::string(84, 'd'));
  for (const uint32_t version : {2U, 3U}) {
    const std::string bytes = writer.File(version);
    const auto file = ParseGguf(AsBytes(bytes), "file");
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_EQ(file->tensors.size(), 4U);
    EXPECT_EQ(file->tensors[0].name, "f32");
    EXPECT_EQ(file->tensors[0].dtype, ElementType::kF32);
    EXPECT_THAT(file->tensors[0].shape, ElementsAre(2, 3));
    EXPECT_EQ(file->tensors[0].data, AsBytes(std::string(24, 'a')));
    EXPECT_EQ(file->tensors[1].dtype, ElementType::kQ8_0);
    EXPECT_THAT(file->tensors[1].shape, ElementsAre(1, 2, 64));
    EXPECT_EQ(file->tensors[1].data, AsBytes(std::string(136, 'b')));
    EXPECT_THAT(file->tensors[2].shape, ElementsAre());
    EXPECT_EQ(file->tensors[2].data, AsBytes("cccc"));
    EXPECT_EQ(file->tensors[3].dtype, std::nullopt);
    EXPECT_EQ(file->tensors[3].type_name, "Q2_K");
    EXPECT_EQ(file->tensors[3].data, AsBytes(std::string(84, 'd')));
  }
}

TEST(GgufTest, TheDataMayEndWithoutItsPadding) {
  GgufWriter writer;
  writer.AddTensor("t", {1}, 0, "tttt");
  std::string bytes = writer.File();
  bytes.resize(bytes.size() - 28);
  EXPECT_TRUE(ParseGguf(AsBytes(bytes), "file").ok());
  bytes.pop_back();
  EXPECT_THAT(MessageOf(ParseGguf(AsBytes(bytes), "file").status()),
              HasSubstr("the file is incomplete"));
}

TEST(GgufTest, FindsTheFileOfAModel) {
  const TempFolder folder;
  const std::string directory = folder.path().string();
  EXPECT_EQ(*FindGguf(directory), std::nullopt);
  EXPECT_EQ(*FindGguf(directory + "/nowhere"), std::nullopt);
  EXPECT_EQ(*FindGguf(directory + "/x.gguf"), directory + "/x.gguf");
  const std::string file = folder.Write("a.gguf", GgufWriter().File());
  EXPECT_EQ(*FindGguf(directory), file);
  const auto opened = OpenGguf(file);
  EXPECT_TRUE(opened.ok()) << opened.status();
  EXPECT_TRUE(absl::IsNotFound(OpenGguf(directory + "/b.gguf").status()));

  folder.Write("b.gguf", "");
  EXPECT_EQ(MessageOf(FindGguf(directory).status()),
            directory +
                ": holds 2 GGUF files, such as 'a.gguf' and "
                "'b.gguf': name the file itself");
  folder.Write("model.safetensors", "");
  EXPECT_EQ(*FindGguf(directory), std::nullopt);
}

}  // namespace
}  // namespace headcount
