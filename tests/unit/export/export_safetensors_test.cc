// An exported folder is the model with its mask, to the bit.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/export/exported_models.h"
#include "tests/unit/model/logits_rows.h"

namespace headcount {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kMailroom[] = HEADCOUNT_SOURCE_DIR "/models/mailroom";

constexpr const char* kModels[] = {
    "llama_bias",     "llama_gqa", "llama_mha_tied", "llama_mqa",
    "mistral_window", "qwen2",     "qwen3"};

std::string TextOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

ExportReport ExportOrDie(const ExportOptions& options) {
  absl::StatusOr<ExportReport> report = Export(options);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *std::move(report) : ExportReport();
}

TEST(ExportSafetensors, GivesTheLogitsOfTheMask) {
  for (const char* name : kModels) {
    const ModelConfig config = ReadModelConfig(TinyModel(name)).value();
    for (uint32_t round = 0; round < 6; ++round) {
      SCOPED_TRACE(absl::StrCat(name, ", mask ", round));
      const HeadMask mask = RandomHeads(config, round);
      const TemporaryDirectory folder;
      const std::string out = folder.path() + "/out";
      const ExportReport report = ExportOrDie(
          {.source = {.path = TinyModel(name), .mask = mask}, .out = out});
      EXPECT_THAT(report.notes, IsEmpty());
      EXPECT_TRUE(SameBits(LogitsOf(out), LogitsOf(TinyModel(name), mask)));
    }
  }
}

// What is left of a head is cut out here by hand: rows of queries.
TEST(ExportSafetensors, HoldsTheRowsOfKeptHeadsAndNoOthers) {
  const WritableModel dense = WritableModel::ReadFrom(TinyModel("llama_gqa"));
  HeadMask mask;
  mask.pruned[1] = {0, 1, 2, 4};  // KV head 0 goes; groups of 3: 2 are left
  const TemporaryDirectory folder;
  const std::string out = folder.path() + "/out";
  ExportOrDie(
      {.source = {.path = TinyModel("llama_gqa"), .mask = mask}, .out = out});
  const WritableModel sliced = WritableModel::ReadFrom(out);
  const std::string prefix = "model.layers.1.self_attn.";
  const WritableTensor& q = sliced.tensors.at(prefix + "q_proj.weight");
  const WritableTensor& k = sliced.tensors.at(prefix + "k_proj.weight");
  EXPECT_EQ(q.shape, (std::vector<int64_t>{2 * 16, 96}));
  EXPECT_EQ(k.shape, (std::vector<int64_t>{16, 96}));
  EXPECT_EQ(sliced.tensors.at(prefix + "o_proj.weight").shape,
            (std::vector<int64_t>{96, 2 * 16}));
  const size_t head = 16 * 96 * 2;  // bytes
  const std::string& from = dense.tensors.at(prefix + "q_proj.weight").data;
  EXPECT_EQ(q.data, from.substr(3 * head, head) + from.substr(5 * head, head));
  EXPECT_EQ(k.data,
            dense.tensors.at(prefix + "k_proj.weight").data.substr(head));
  EXPECT_EQ(sliced.config.at("num_attention_heads"),
            nlohmann::json::parse("[6, 2, 6]"));
  EXPECT_EQ(sliced.config.at("num_key_value_heads"),
            nlohmann::json::parse("[2, 1, 2]"));
  EXPECT_FALSE(sliced.config.contains("pruned_heads"));
}

TEST(ExportSafetensors, OfAnExportedModelTakesOutMore) {
  const std::string path = TinyModel("llama_bias");
  HeadMask ragged;
  ragged.pruned[0] = {0, 4, 5};  // leaves groups of 2 and 1
  ragged.pruned[1] = {0, 1, 2, 3, 4, 5};
  const TemporaryDirectory folder;
  const std::string once = folder.path() + "/once";
  ExportOrDie({.source = {.path = path, .mask = ragged}, .out = once});
  // In the numbers of the exported model: two KV heads of 2, of which the
  // last one has lost its second.
  const std::string twice = folder.path() + "/twice";
  HeadMask more;
  more.pruned[0] = {0};
  more.pruned[2] = {3, 4, 5};
  ExportOrDie({.source = {.path = once, .mask = more}, .out = twice});
  HeadMask both = ragged;
  both.pruned[0] = {0, 1, 4, 5};
  both.pruned[2] = {3, 4, 5};
  EXPECT_TRUE(SameBits(LogitsOf(twice), LogitsOf(path, both)));
  EXPECT_TRUE(SameBits(LogitsOf(once, more), LogitsOf(path, both)));
}

TEST(ExportSafetensors, OfMailroomIsItsMask) {
  const TemporaryDirectory folder;
  const std::string out = folder.path() + "/half";
  const std::string mask_file = absl::StrCat(kMailroom, "/heads_half.json");
  const ExportReport report = ExportOrDie(
      {.source = {.path = kMailroom, .mask_file = mask_file}, .out = out});
  EXPECT_EQ(report.kv_bytes_per_token[0], 3072);
  EXPECT_EQ(report.kv_bytes_per_token[1], 1536);
  // 12 of 24 groups: of each, three rows of heads of Wq, three of Wo, and Wk
  // and Wv; the norm of the layer without heads.
  EXPECT_EQ(report.weight_bytes[0] - report.weight_bytes[1],
            (12 * 8 * 32 * 192 + 192) * 2);
  EXPECT_TRUE(SameBits(LogitsOf(out), LogitsOf(kMailroom, {}, mask_file)));
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    EXPECT_EQ(TextOf(fs::path(out) / name), TextOf(fs::path(kMailroom) / name))
        << name;
  }
}

TEST(ExportRepair, IsFoldedIntoTheWeights) {
  const WritableTensors repair = {
      {"layers.0.o_proj.weight", Ramp({96, 4 * 16})},
      {"layers.0.o_proj.bias", Ramp({96})},
      {"layers.1.o_proj.bias", Ramp({96})}};
  const TemporaryDirectory folder;
  for (const char* name : {"llama_gqa", "llama_bias", "qwen3"}) {
    SCOPED_TRACE(name);
    const std::string mask_file = MaskFileWithRepair(name, repair, folder);
    const std::string out = absl::StrCat(folder.path(), "/", name);
    ExportOrDie({.source = {.path = TinyModel(name), .mask_file = mask_file},
                 .out = out});
    EXPECT_TRUE(
        SameBits(LogitsOf(out), LogitsOf(TinyModel(name), {}, mask_file)));
  }
}

TEST(ExportRepair, WithABiasThatTheArchitectureCannotSayIsRefused) {
  const TemporaryDirectory folder;
  const std::string mask_file = MaskFileWithRepair(
      "qwen2", {{"layers.0.o_proj.bias", Ramp({96})}}, folder);
  const absl::Status status =
      Export({.source = {.path = TinyModel("qwen2"), .mask_file = mask_file},
              .out = folder.path() + "/out"})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("qwen2 has no key for"));
}

TEST(ExportSafetensors, LeavesWhatIsThereAloneUnlessForced) {
  const TemporaryDirectory folder;
  folder.Write("config.json", "mine");
  folder.Write("notes.txt", "mine too");
  ExportOptions options{.source = {.path = TinyModel("llama_mqa")},
                        .out = folder.path()};
  const absl::Status status = Export(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--force"));
  EXPECT_EQ(TextOf(folder.path() + "/config.json"), "mine");
  options.force = true;
  ExportOrDie(options);
  EXPECT_TRUE(SameBits(LogitsOf(folder.path()), LogitsOf(options.source.path)));
  EXPECT_EQ(TextOf(folder.path() + "/notes.txt"), "mine too");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 3);
}

TEST(ExportSafetensors, RefusesToWriteOverTheModelItself) {
  const ModelWithTokenizer model("llama_gqa");
  const absl::Status status = Export({.source = {.path = model.path()},
                                      .out = model.path() + "/.",
                                      .force = true})
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is the model itself"));
}

TEST(ExportSafetensors, LeavesNothingBehindWhenItFails) {
  const TemporaryDirectory folder;
  WritableModel model = WritableModel::ReadFrom(TinyModel("llama_gqa"));
  model.tensors.erase("model.layers.2.mlp.up_proj.weight");
  const TemporaryDirectory broken;
  model.WriteTo(broken);
  const absl::Status status =
      Export({.source = {.path = broken.path()}, .out = folder.path() + "/out"})
          .status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("tensor model.layers.2.mlp.up_proj.weight is missing"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
  EXPECT_EQ(Export({.source = {.path = TinyModel("llama_gqa")},
                    .out = folder.path() + "/no/such/folder"})
                .status()
                .code(),
            absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace headcount
