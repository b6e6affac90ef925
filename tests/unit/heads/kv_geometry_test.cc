#include "heads/kv_geometry.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

struct ModelShape {
  const char* name;
  int layers;
  LayerShape heads;
  int head_dim;
};

// Published configurations.
constexpr ModelShape kLlama31{"Llama-3.1-8B", 32, {32, 8}, 128};
constexpr ModelShape kMistral{"Mistral-7B-v0.3", 32, {32, 8}, 128};
constexpr ModelShape kQwen25{"Qwen2.5-7B", 28, {28, 4}, 128};
constexpr ModelShape kSmolLm2{"SmolLM2-135M", 30, {9, 3}, 64};
constexpr ModelShape kGemma3{"Gemma-3-270M", 18, {4, 1}, 256};
constexpr ModelShape kGpt2{"GPT-2", 12, {12, 12}, 64};

constexpr KvDtype kDtypes[] = {KvDtype::kF32,  KvDtype::kF16,
                               KvDtype::kBf16, KvDtype::kFp8E4m3,
                               KvDtype::kInt8, KvDtype::kInt4};

// The layout with the first `groups_cut` KV groups pruned, layer by layer.
HeadLayout LayoutOf(const ModelShape& shape, int groups_cut = 0,
                    KvDtype dtype = KvDtype::kF16) {
  HeadLayoutSpec spec;
  spec.layers.resize(static_cast<size_t>(shape.layers), shape.heads);
  spec.head_dim = shape.head_dim;
  spec.kv_dtype = dtype;
  const int group_size = shape.heads.query_heads / shape.heads.kv_heads;
  for (int i = 0; i < groups_cut; ++i) {
    const int layer = i / shape.heads.kv_heads;
    const int first = i % shape.heads.kv_heads * group_size;
    for (int head = first; head < first + group_size; ++head) {
      spec.mask.pruned[layer].insert(head);
    }
  }
  absl::StatusOr<HeadLayout> layout = HeadLayout::Create(spec);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *std::move(layout);
}

TEST(KvBytesPerToken, EqualsThePublishedArithmetic) {
  const struct {
    ModelShape shape;
    int groups_cut;
    KvDtype dtype;
    int64_t bytes;
  } kCases[] = {
      {kLlama31, 0, KvDtype::kF16, 131072},
      {kLlama31, 64, KvDtype::kF16, 98304},
      {kLlama31, 96, KvDtype::kF16, 81920},
      {kLlama31, 128, KvDtype::kF16, 65536},
      {kMistral, 0, KvDtype::kF16, 131072},
      {kMistral, 64, KvDtype::kF16, 98304},
      {kQwen25, 0, KvDtype::kF16, 57344},
      {kQwen25, 28, KvDtype::kF16, 43008},
      {kQwen25, 42, KvDtype::kF16, 35840},
      {kQwen25, 56, KvDtype::kF16, 28672},
      {kSmolLm2, 0, KvDtype::kF16, 23040},
      {kSmolLm2, 22, KvDtype::kF16, 17408},
      {kSmolLm2, 34, KvDtype::kF16, 14336},
      {kSmolLm2, 45, KvDtype::kF16, 11520},
      {kGemma3, 0, KvDtype::kF16, 18432},
      {kGpt2, 0, KvDtype::kF16, 36864},
      {kGpt2, 0, KvDtype::kF32, 73728},
      {kGpt2, 72, KvDtype::kF16, 18432},
      // 4 bytes of scales for each token of each KV head.
      {kLlama31, 0, KvDtype::kBf16, 131072},
      {kLlama31, 0, KvDtype::kInt8, 65536 + 1024},
      {kLlama31, 0, KvDtype::kFp8E4m3, 65536 + 1024},
      {kLlama31, 0, KvDtype::kInt4, 32768 + 1024},
      {kSmolLm2, 0, KvDtype::kInt8, 11520 + 360},
      {kSmolLm2, 45, KvDtype::kInt4, 2880 + 180},
  };
  for (const auto& expected : kCases) {
    const HeadLayout layout =
        LayoutOf(expected.shape, expected.groups_cut, expected.dtype);
    absl::StatusOr<int64_t> bytes = KvBytesPerToken(layout);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_EQ(*bytes, expected.bytes)
        << expected.shape.name << ", " << expected.groups_cut << " groups cut";
    EXPECT_EQ(layout.kv_heads(), layout.dense_kv_heads() - expected.groups_cut);
  }
}

TEST(KvBytesPerToken, DoesNotFallForHeadsOfALivingGroup) {
  HeadLayoutSpec spec;
  spec.layers = {{9, 3}};
  spec.head_dim = 64;
  spec.mask.pruned[0] = {0, 1, 4, 8};
  EXPECT_EQ(*KvBytesPerToken(*HeadLayout::Create(spec)), 3 * 64 * 2 * 2);
  spec.mask.pruned[0] = {0, 1, 2, 4, 8};
  EXPECT_EQ(*KvBytesPerToken(*HeadLayout::Create(spec)), 2 * 64 * 2 * 2);
}

TEST(KvBytesPerToken, IsZeroWithoutAttention) {
  HeadLayoutSpec spec;
  spec.layers = {{0, 0}, {2, 1}};
  spec.head_dim = 64;
  spec.mask.pruned[1] = {0, 1};
  EXPECT_EQ(*KvBytesPerToken(*HeadLayout::Create(spec)), 0);
}

TEST(KvGeometry, LaysPagesOutOneAfterTheOtherWithoutGapOrOverlap) {
  for (KvDtype dtype : {KvDtype::kF16, KvDtype::kBf16, KvDtype::kF32}) {
    const HeadLayout layout = LayoutOf(kSmolLm2, 22, dtype);
    absl::StatusOr<KvGeometry> geometry = KvGeometry::Create(layout, 0);
    ASSERT_TRUE(geometry.ok()) << geometry.status();
    const int64_t tensor_bytes = 16 * KvRowBytes(64, dtype);
    int64_t next = 0;
    for (size_t layer = 0; layer < layout.layers().size(); ++layer) {
      for (size_t slot = 0; slot < layout.layers()[layer].kv_heads.size();
           ++slot) {
        const KvPage& page =
            geometry->page(static_cast<int>(layer), static_cast<int>(slot));
        EXPECT_EQ(page.k_offset, next);
        EXPECT_EQ(page.v_offset, next + tensor_bytes);
        EXPECT_EQ(page.dtype, dtype);
        next += 2 * tensor_bytes;
      }
    }
    EXPECT_EQ(geometry->block_bytes(), next);
    EXPECT_EQ(geometry->bytes_per_token() * kBlockTokens, next);
  }
}

TEST(KvGeometry, PadsRowsToWholePiecesOf16Bytes) {
  const struct {
    KvDtype dtype;
    int head_dim;
    int64_t row;
  } kCases[] = {
      {KvDtype::kF32, 80, 320},    {KvDtype::kF16, 80, 160},
      {KvDtype::kBf16, 8, 16},     {KvDtype::kInt8, 32, 32},
      {KvDtype::kInt8, 80, 80},    {KvDtype::kInt8, 24, 32},
      {KvDtype::kFp8E4m3, 96, 96}, {KvDtype::kInt4, 32, 16},
      {KvDtype::kInt4, 64, 32},    {KvDtype::kInt4, 80, 48},
      {KvDtype::kInt4, 96, 48},    {KvDtype::kInt4, 128, 64},
      {KvDtype::kInt4, 256, 128},  {KvDtype::kInt4, 40, 32},
  };
  for (const auto& expected : kCases) {
    EXPECT_EQ(KvRowBytes(expected.head_dim, expected.dtype), expected.row)
        << KvDtypeName(expected.dtype) << ", head_dim " << expected.head_dim;
  }
}

TEST(KvGeometry, PutsScalesOfTokensBehindKAndV) {
  for (const int head_dim : {32, 64, 80, 96, 128, 256}) {
    for (const KvDtype dtype : kDtypes) {
      const HeadLayout layout =
          LayoutOf({"two layers", 2, {4, 2}, head_dim}, 0, dtype);
      const KvGeometry geometry = *KvGeometry::Create(layout, 0);
      const int64_t tensor = 16 * KvRowBytes(head_dim, dtype);
      const bool scales = KvDtypeBits(dtype) <= 8;
      const int64_t page_bytes = 2 * tensor + (scales ? 2 * 16 * 2 : 0);
      for (int i = 0; i < 4; ++i) {
        const KvPage& page = geometry.page(i / 2, i % 2);
        EXPECT_EQ(page.k_offset, i * page_bytes);
        EXPECT_EQ(page.v_offset, page.k_offset + tensor);
        EXPECT_EQ(page.bytes, page_bytes);
        EXPECT_EQ(page.scale, scales ? KvScale::kToken : KvScale::kNone);
        EXPECT_EQ(page.k_scales_offset, scales ? page.v_offset + tensor : -1);
        EXPECT_EQ(page.v_scales_offset,
                  scales ? page.v_offset + tensor + 32 : -1);
      }
      EXPECT_EQ(geometry.block_bytes(), 4 * page_bytes);
    }
  }
}

TEST(KvGeometry, HoldsPagesOfUnlikeDtypes) {
  const HeadLayout layout = *HeadLayout::Create(
      {.layers = {{4, 4}},
       .head_dim = 64,
       .kv_dtype = KvDtype::kInt8,
       .kv_head_rules = {{0, {{1, {KvDtype::kF16}}, {2, {KvDtype::kInt4}}}}}});
  const KvGeometry geometry = *KvGeometry::Create(layout, 0);
  EXPECT_EQ(geometry.page(0, 0).dtype, KvDtype::kInt8);
  EXPECT_EQ(geometry.page(0, 1).dtype, KvDtype::kF16);
  EXPECT_EQ(geometry.page(0, 1).k_offset, 2112);
  EXPECT_EQ(geometry.page(0, 2).k_offset, 2112 + 4096);
  EXPECT_EQ(geometry.page(0, 3).k_offset, 2112 + 4096 + 1088);
  EXPECT_EQ(geometry.block_bytes(), 2112 + 4096 + 1088 + 2112);
  EXPECT_EQ(geometry.bytes_per_token(), 132 + 256 + 68 + 132);
}

TEST(KvGeometryDeathTest, RefusesHeadsThatDoNotExist) {
  const HeadLayout layout = LayoutOf(kSmolLm2, 1);
  const KvGeometry geometry = *KvGeometry::Create(layout, 0);
  EXPECT_DEATH(geometry.page(0, 2), "layer 0, KV slot 2");
  EXPECT_DEATH(geometry.page(30, 0), "layer 30");
  EXPECT_DEATH(geometry.page(0, -1), "KV slot -1");
}

TEST(KvGeometry, RoundsTokensUpToBlocks) {
  EXPECT_EQ(KvGeometry::BlocksFor(0), 0);
  EXPECT_EQ(KvGeometry::BlocksFor(1), 1);
  EXPECT_EQ(KvGeometry::BlocksFor(16), 1);
  EXPECT_EQ(KvGeometry::BlocksFor(17), 2);
  EXPECT_EQ(KvGeometry::BlocksFor(4097) * kBlockTokens, 4112);
  EXPECT_EQ(KvGeometry::BlocksFor(INT64_MAX), (int64_t{1} << 59));
}

// By trying every place in a block where a step can start.
TEST(KvGeometry, BoundsTheBlocksThatAWindowHolds) {
  EXPECT_EQ(KvGeometry::MostBlocks({}, 1), INT64_MAX);
  for (const int32_t window : {1, 2, 8, 15, 16, 17, 33, 100, 4096}) {
    for (const int64_t step : {1, 2, 15, 16, 17, 256}) {
      int64_t most = 0;
      for (int64_t past = 5000; past < 5000 + kBlockTokens; ++past) {
        const int64_t first = (past + 1 - window) / kBlockTokens;
        const int64_t last = (past + step - 1) / kBlockTokens;
        most = std::max(most, last - first + 1);
      }
      EXPECT_EQ(KvGeometry::MostBlocks({.window = window}, step), most)
          << window << ", " << step;
      EXPECT_EQ(KvGeometry::MostBlocks({.window = window, .sink = 64}, step),
                most + 4);
    }
  }
}

// Sequences that fit a device: memory x utilisation, less weights (16 bits a
// parameter) and 1 GiB of overhead, in whole blocks.
TEST(KvGeometry, FitsAsManySequencesAsThePublishedArithmetic) {
  const struct {
    ModelShape shape;
    int groups_cut;
    int64_t parameters;
    int64_t memory_gib;
    int64_t context;
    int64_t sequences;
  } kCases[] = {
      {kLlama31, 0, 8030261248, 24, 4096, 11},
      {kLlama31, 0, 8030261248, 24, 4097, 11},
      {kLlama31, 0, 8030261248, 80, 32768, 14},
      {kLlama31, 128, 7359172608, 24, 4096, 27},
      {kLlama31, 128, 7359172608, 24, 8192, 13},
      {kLlama31, 128, 7359172608, 80, 32768, 28},
      {kMistral, 96, 6744707072, 24, 4096, 25},
      {kQwen25, 42, 7307286784, 24, 8192, 25},
      {kSmolLm2, 34, 124488000, 24, 4096, 372},
      {kGpt2, 72, 110270208, 8, 1024, 341},
  };
  for (const auto& expected : kCases) {
    const KvGeometry geometry =
        *KvGeometry::Create(LayoutOf(expected.shape, expected.groups_cut), 0);
    const int64_t memory = expected.memory_gib << 30;
    const auto usable =
        static_cast<int64_t>(std::floor(static_cast<double>(memory) * 0.9));
    const int64_t room = usable - 2 * expected.parameters - (int64_t{1} << 30);
    const int64_t sequence_bytes =
        KvGeometry::BlocksFor(expected.context) * geometry.block_bytes();
    EXPECT_EQ(room / sequence_bytes, expected.sequences)
        << expected.shape.name << ", " << expected.groups_cut
        << " groups cut, context " << expected.context;
  }
}

TEST(SlabBytes, IsThePowerOfTwoNearestToA256thOfThePool) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  const struct {
    int64_t pool;
    int64_t slab;
  } kCases[] = {
      {0, 2 * kMiB},
      {64 * kMiB, 2 * kMiB},
      {512 * kMiB, 2 * kMiB},
      {724 * kMiB, 2 * kMiB},  // 2.828 MiB, just below 2 sqrt(2)
      {725 * kMiB, 4 * kMiB},  // 2.832 MiB, just above
      {1024 * kMiB, 4 * kMiB},
      {1448 * kMiB, 4 * kMiB},
      {1449 * kMiB, 8 * kMiB},
      {8192 * kMiB, 32 * kMiB},
      {16384 * kMiB, 64 * kMiB},
      {81920 * kMiB, 64 * kMiB},
      {INT64_MAX, 64 * kMiB},
  };
  for (const auto& expected : kCases) {
    EXPECT_EQ(SlabBytes(expected.pool), expected.slab) << expected.pool;
  }
}

TEST(KvDtype, IsParsedByItsName) {
  for (KvDtype dtype : kDtypes) {
    EXPECT_EQ(*ParseKvDtype(KvDtypeName(dtype)), dtype);
  }
  EXPECT_THAT(std::string(ParseKvDtype("int3").status().message()),
              HasSubstr("\"int3\" is not a KV dtype; known: f32, f16, bf16, "
                        "fp8_e4m3, int8, int4"));
}

}  // namespace
}  // namespace headcount
