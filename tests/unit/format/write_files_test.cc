// Files that are written: byte for byte what writers of the tests' own make,
// and there only when they are whole.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "format/checkpoint.h"
#include "format/write_gguf.h"
#include "format/write_safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/format/temp_folder.h"

namespace headcount {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TensorToWrite TensorOf(const std::string& name, ElementType dtype,
                       const std::vector<int64_t>& shape,
                       const std::string& data) {
  const size_t row = data.size() / static_cast<size_t>(shape[0]);
  return {.name = name,
          .dtype = dtype,
          .shape = shape,
          .read = [data, row](int64_t first, int64_t count, std::byte* out) {
            std::memcpy(out, data.data() + static_cast<size_t>(first) * row,
                        static_cast<size_t>(count) * row);
          }};
}

std::string Noise(size_t bytes) {
  std::string noise;
  for (size_t i = 0; i < bytes; ++i) {
    noise.push_back(static_cast<char>(i * i * 31 + i));
  }
  return noise;
}

std::string TextOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(WriteGguf, WritesWhatTheFormatSays) {
  GgufKeys keys;
  keys.SetString("general.architecture", "deci");
  keys.SetInt("deci.block_count", 5);
  keys.SetInt("deci.block_count", 3);  // the last one holds
  keys.SetFloat("deci.rope.freq_base", 1e4F);
  keys.SetBool("tokenizer.ggml.add_bos_token", true);
  keys.SetInts("deci.attention.head_count", {6, 0, -1});
  keys.SetStrings("tokenizer.ggml.tokens", {"a", "", "\xC4\xA0the"});
  GgufWriter writer;
  writer.AddString("general.architecture", "deci");
  writer.AddInt("deci.block_count", 3);
  writer.AddFloat("deci.rope.freq_base", 1e4F);
  writer.AddBool("tokenizer.ggml.add_bos_token", true);
  writer.AddInts("deci.attention.head_count", {6, 0, -1});
  writer.AddStrings("tokenizer.ggml.tokens", {"a", "", "\xC4\xA0the"});
  // More than what is copied at a time, in rows that do not divide it.
  const std::string large = Noise(5000 * 3 * 144);
  writer.AddTensor("large", {3 * 256, 5000}, 12, large);
  writer.AddTensor("odd", {3}, 0, Noise(12));
  writer.AddTensor("half", {5, 2}, 1, Noise(20));
  const TempFolder folder;
  const std::string path = (folder.path() / "x.gguf").string();
  int64_t done = 0;
  const absl::Status status =
      WriteGguf(path, keys,
                {TensorOf("large", ElementType::kQ4_K, {5000, 3 * 256}, large),
                 TensorOf("odd", ElementType::kF32, {3}, Noise(12)),
                 TensorOf("half", ElementType::kF16, {2, 5}, Noise(20))},
                [&](int64_t now, int64_t total) {
                  EXPECT_GT(now, done);
                  EXPECT_EQ(total, 5000 * 3 * 144 + 12 + 20);
                  done = now;
                });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(done, 5000 * 3 * 144 + 12 + 20);
  EXPECT_TRUE(TextOf(path) == writer.File());
}

TEST(WriteGguf, RefusesNamesThatReadersDoNotTake) {
  const TempFolder folder;
  const absl::Status status = WriteGguf(
      (folder.path() / "x.gguf").string(), {},
      {TensorOf(std::string(64, 'n'), ElementType::kF32, {1}, Noise(4))},
      nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(WriteSafetensors, WritesWhatReadersRead) {
  const TempFolder folder;
  const std::string path = (folder.path() / "model.safetensors").string();
  const std::string large = Noise(700'001 * 2);
  const absl::Status status = WriteSafetensors(
      path,
      {TensorOf("b.weight", ElementType::kBf16, {700'001, 1}, large),
       TensorOf("a.bias", ElementType::kF32, {2}, Noise(8))},
      nullptr);
  ASSERT_TRUE(status.ok()) << status;
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TensorView* tensor = checkpoint->Find("b.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->dtype, ElementType::kBf16);
  EXPECT_EQ(tensor->shape, (std::vector<int64_t>{700'001, 1}));
  EXPECT_EQ(std::memcmp(tensor->data.data(), large.data(), large.size()), 0);
  EXPECT_EQ(checkpoint->Find("a.bias")->shape, (std::vector<int64_t>{2}));
  // transformers asks for the framework.
  const std::string header = R"({"__metadata__":{"format":"pt"},"b.weight":)";
  EXPECT_EQ(TextOf(path).substr(8, header.size()), header);
  EXPECT_EQ((TextOf(path).size() - large.size() - 8) % 8, 0U);
}

TEST(WriteSafetensors, RefusesWhatTheFormatDoesNotHave) {
  const TempFolder folder;
  const std::string path = (folder.path() / "x.safetensors").string();
  const auto said = [&](const TensorToWrite& tensor) {
    return std::string(WriteSafetensors(path, {tensor}, nullptr).message());
  };
  EXPECT_THAT(said(TensorOf("q", ElementType::kQ4_0, {1, 32}, Noise(18))),
              HasSubstr("tensor 'q' is Q4_0, which safetensors does not have"));
  EXPECT_THAT(said(TensorOf("huge", ElementType::kF32,
                            {int64_t{1} << 40, int64_t{1} << 40}, "")),
              HasSubstr("tensor 'huge' of shape [1099511627776, 1099511627776] "
                        "is too large for a file"));
  EXPECT_THAT(said(TensorOf("none", ElementType::kF32, {1, 0}, "")),
              HasSubstr("is neither a vector nor a matrix"));
  EXPECT_THAT(said(TensorOf("cut", ElementType::kQ8_0, {1, 33}, "")),
              HasSubstr("'cut'"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(OutputFile, ReplacesAFileOnlyWhenItIsWhole) {
  const TempFolder folder;
  const std::string path = folder.Write("x", "before");
  {
    absl::StatusOr<OutputFile> file = OutputFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(file->Append("half of it").ok());
  }
  EXPECT_EQ(TextOf(path), "before");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
  absl::StatusOr<OutputFile> file = OutputFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  OutputFile moved = *std::move(file);
  EXPECT_TRUE(moved.Append("all ").ok());
  EXPECT_TRUE(moved.Append("of it").ok());
  EXPECT_EQ(TextOf(path), "before");
  EXPECT_TRUE(moved.Commit().ok());
  EXPECT_EQ(TextOf(path), "all of it");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(OutputFile, NamesThePathThatCannotBeWritten) {
  const TempFolder folder;
  const std::string path = (folder.path() / "no" / "such").string();
  EXPECT_THAT(std::string(OutputFile::Create(path).status().message()),
              HasSubstr(path));
  EXPECT_THAT(
      std::string(
          OutputFile::Create(std::string("a\0b", 3)).status().message()),
      HasSubstr("'a\\x00b' contains a NUL byte"));
}

}  // namespace
}  // namespace headcount
