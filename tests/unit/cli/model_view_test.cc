#include "cli/model_view.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

v1::LayerHeads Layer(int query_heads, int kv_heads, std::vector<int> kept) {
  v1::LayerHeads layer;
  layer.set_query_heads_unpruned(query_heads);
  layer.set_kv_heads_unpruned(kv_heads);
  for (const int head : kept) layer.add_query_heads(head);
  return layer;
}

TEST(HeadStripTest, ShowsEachHeadInItsGroup) {
  EXPECT_EQ(HeadStrip(Layer(6, 2, {0, 1, 2, 3, 4, 5})), "### ###");
  EXPECT_EQ(HeadStrip(Layer(6, 2, {0, 2})), "#.# ...");
  EXPECT_EQ(HeadStrip(Layer(3, 3, {1})), ". # .");
  EXPECT_EQ(HeadStrip(Layer(4, 1, {3})), "...#");
  EXPECT_EQ(HeadStrip(Layer(4, 2, {})), ".. ..");
  EXPECT_EQ(HeadStrip(Layer(0, 0, {})), "-");
}

TEST(HeadStripTest, SurvivesAServerThatLies) {
  EXPECT_EQ(HeadStrip(Layer(3, 1, {-1, 3, 1 << 30, 1})), ".#.");
  EXPECT_EQ(HeadStrip(Layer(3, 7, {1})), HeadStrip(Layer(3, 7, {1})));
}

TEST(ModelViewTest, SaysWhatPruningSaved) {
  v1::Model model;
  model.set_name("mailroom-half");
  model.set_kv_bytes_per_token(1536);
  model.set_kv_bytes_per_token_unpruned(3072);
  model.set_weight_bytes(900);
  model.set_weight_bytes_pruned(100);
  model.set_query_heads(36);
  model.set_query_heads_unpruned(72);
  *model.add_layers() = Layer(6, 2, {0, 1, 2});
  const std::string text = RenderModel(model);
  EXPECT_THAT(text, HasSubstr("1.5 KiB, 50.0 % less than the 3.0 KiB"));
  EXPECT_THAT(text, HasSubstr("900 B, 10.0 % less than the 1000 B"));
  EXPECT_THAT(text, HasSubstr("36 of 72, 36 pruned"));
  EXPECT_THAT(text, HasSubstr("### ..."));
  EXPECT_EQ(ModelJson(model)["layers"][0]["query_heads"],
            Json::array({0, 1, 2}));
}

TEST(ModelViewTest, SaysWhoseWeightsAVariantShares) {
  v1::Model model;
  model.set_name("spam");
  EXPECT_EQ(VariantNote(model.variant_of()), "");
  model.set_variant_of("mail");
  EXPECT_THAT(RenderModel(model),
              AllOf(HasSubstr("spam, variant of mail\n"),
                    HasSubstr("0 B, it shares those of mail\n")));
  EXPECT_EQ(VariantNote(model.variant_of()), "variant of mail");
  EXPECT_EQ(ModelJson(model)["variant_of"], "mail");
  EXPECT_EQ(ModelJson(model)["weight_bytes"], 0);
  model.set_state(v1::Model::STATE_FAILED);
  EXPECT_THAT(RenderModel(model), HasSubstr("spam, variant of mail\n"));
}

TEST(ModelViewTest, SaysWhichLayersKeepAWindow) {
  v1::Model model;
  for (const int window : {0, 4096}) {
    v1::LayerHeads* layer = model.add_layers();
    *layer = Layer(6, 2, {0, 1, 2});
    layer->add_kv_heads()->set_window(window);
  }
  *model.add_layers() = Layer(6, 2, {});
  EXPECT_THAT(RenderModel(model),
              AllOf(HasSubstr("all tokens"), HasSubstr("last 4,096")));
  EXPECT_EQ(ModelJson(model)["layers"][1]["kv_heads"][0]["window"], 4096);
}

TEST(ModelViewTest, SaysHowKvHeadsAreStored) {
  v1::Model model;
  model.set_precision("fast");
  model.set_kv_dtype("int8");
  for (int i = 0; i < 2; ++i) {
    v1::LayerHeads* layer = model.add_layers();
    *layer = Layer(6, 2, {0, 1, 2, 3, 4, 5});
    for (int head = 0; head < 2; ++head) {
      v1::KvHead* kv = layer->add_kv_heads();
      kv->set_dtype("int8");
      kv->set_bytes_per_token(132);
    }
  }
  EXPECT_THAT(RenderModel(model),
              AllOf(HasSubstr("fast, KV int8\n"), HasSubstr("264 B")));
  v1::KvHead* odd = model.mutable_layers(1)->mutable_kv_heads(1);
  odd->set_dtype("f16");
  odd->set_bytes_per_token(256);
  EXPECT_THAT(RenderModel(model),
              AllOf(HasSubstr("fast, KV int8 (3), f16 (1)"),
                    HasSubstr("int8,f16"), HasSubstr("388 B")));
  const Json head = ModelJson(model)["layers"][1]["kv_heads"][1];
  EXPECT_EQ(head["dtype"], "f16");
  EXPECT_EQ(head["bytes_per_token"], 256);
}

}  // namespace
}  // namespace headcount
