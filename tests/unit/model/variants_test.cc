// Variants of a model against compact loads of the same masks, which
// golden_test.cc compares with transformers.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gtest/gtest.h"
#include "tests/golden/model_golden.h"
#include "tests/unit/model/logits_rows.h"
#include "tests/unit/model/model_runner.h"
#include "tests/unit/model/reference_backend.h"

namespace headcount {
namespace {

ModelRunner Load(Backend* backend, const GoldenModel& model,
                 const HeadMask& mask, KvDtype dtype) {
  return ModelRunner(
      backend, {.model = {.path = model.path, .mask = mask, .kv_dtype = dtype},
                .pool_tokens = 8192});
}

// What one case of the golden values runs through a variant.
struct VariantCase {
  std::string name;
  std::vector<int32_t> ids;
  size_t variant = 0;
  std::vector<LogitsRow> compact;  // by a load with the variant's mask
};

// Adds a variant for each mask of `model` to `runner`, and returns its cases.
std::vector<VariantCase> AddVariants(Backend* backend, const GoldenModel& model,
                                     KvDtype dtype, ModelRunner* runner) {
  std::vector<VariantCase> cases;
  for (const auto& [mask, heads] : model.masks) {
    const size_t variant =
        runner->AddVariant({.mask = heads, .kv_dtype = dtype});
    ModelRunner compact = Load(backend, model, heads, dtype);
    for (const GoldenCase& golden : model.cases) {
      if (golden.mask != mask || golden.ids.size() > 100) continue;
      cases.push_back({golden.name, golden.ids, variant,
                       compact.RunAlone(golden.ids, static_cast<int32_t>(
                                                        golden.ids.size()))});
    }
  }
  return cases;
}

TEST(Variants, HaveTheBitsOfACompactLoadAloneAndInCompany) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  int compared = 0;
  for (const GoldenModel& model : ReadGoldenModels()) {
    for (KvDtype dtype : {KvDtype::kF32, KvDtype::kF16}) {
      ModelRunner runner = Load(backend.get(), model, {}, dtype);
      const std::vector<VariantCase> cases =
          AddVariants(backend.get(), model, dtype, &runner);
      std::vector<std::vector<int32_t>> prompts;
      std::vector<size_t> variants;
      std::vector<int32_t> chunks;
      for (const VariantCase& one : cases) {
        SCOPED_TRACE(model.name + " " + one.name);
        EXPECT_TRUE(
            SameBits(runner.RunAlone(one.ids, 100, one.variant), one.compact));
        prompts.push_back(one.ids);
        variants.push_back(one.variant);
        chunks.push_back(std::vector<int32_t>{1, 7, 16, 3}[compared++ % 4]);
      }
      const auto together = runner.RunTogether(prompts, chunks, variants);
      for (size_t i = 0; i < cases.size(); ++i) {
        EXPECT_TRUE(SameBits(together[i], cases[i].compact))
            << model.name << " " << cases[i].name << " in company";
      }
      EXPECT_EQ(runner.pool().bytes().used, 0);
      runner.pool().CheckInvariants();
    }
  }
  EXPECT_GT(compared, 40);
}

// The naive backend sums in another order than the fast one, and has the code
// for variants twice over.
TEST(Variants, AgreeWithCompactLoadsOnTheReferenceBackend) {
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  for (const GoldenModel& model : ReadGoldenModels()) {
    if (model.name == "mailroom") continue;  // slow
    ModelRunner runner = Load(backend.get(), model, {}, KvDtype::kF32);
    for (const VariantCase& one :
         AddVariants(backend.get(), model, KvDtype::kF32, &runner)) {
      const std::vector<LogitsRow> found =
          runner.RunAlone(one.ids, 100, one.variant);
      EXPECT_LT(Furthest(found, one.compact), 1e-5)
          << model.name << " " << one.name;
    }
  }
}

TEST(Variants, WithoutAMaskHaveTheBitsOfTheirBase) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  for (const GoldenModel& model : ReadGoldenModels()) {
    for (const auto& [mask, heads] : model.masks) {
      SCOPED_TRACE(model.name + " " + mask);
      ModelRunner runner = Load(backend.get(), model, heads, KvDtype::kF16);
      const size_t variant = runner.AddVariant({});
      const std::vector<int32_t>& ids = model.cases.front().ids;
      const std::vector<LogitsRow> base = runner.RunAlone(ids, 100);
      EXPECT_TRUE(SameBits(runner.RunAlone(ids, 100, variant), base));
      const auto together = runner.RunTogether({ids, ids}, {5, 16}, {variant});
      EXPECT_TRUE(SameBits(together[0], base));
      EXPECT_TRUE(SameBits(together[1], base));
    }
  }
}

// Every third head of what `mask` leaves goes as well.
HeadMask Wider(const HeadLayout& layout, HeadMask mask) {
  int count = 0;
  for (size_t l = 0; l < layout.layers().size(); ++l) {
    for (const int head : layout.layers()[l].query_heads) {
      if (count++ % 3 == 0) mask.pruned[static_cast<int>(l)].insert(head);
    }
  }
  return mask;
}

TEST(Variants, OfAPrunedModelPruneMore) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  for (const GoldenModel& model : ReadGoldenModels()) {
    for (const auto& [mask, heads] : model.masks) {
      SCOPED_TRACE(model.name + " " + mask);
      ModelRunner base = Load(backend.get(), model, heads, KvDtype::kF16);
      const HeadMask wider = Wider(base.model().layout(), heads);
      ModelRunner compact = Load(backend.get(), model, wider, KvDtype::kF16);
      const size_t variant = base.AddVariant({.mask = wider});
      EXPECT_EQ(base.variant(variant).kv_bytes_per_token(),
                compact.model().kv_bytes_per_token());
      const std::vector<int32_t>& ids = model.cases.front().ids;
      EXPECT_TRUE(
          SameBits(base.RunAlone(ids, 16, variant), compact.RunAlone(ids, 16)));
    }
  }
}

TEST(Variants, TakeGatesAndLeaveThoseOfOthersAlone) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend({});
  for (const GoldenModel& model : ReadGoldenModels()) {
    ModelRunner base = Load(backend.get(), model, {}, KvDtype::kF32);
    std::vector<float> gates;
    for (int64_t i = 0; i < base.model().layout().dense_query_heads(); ++i) {
      gates.push_back(static_cast<float>(i * 3 % 5) / 4);
    }
    std::vector<int32_t> ids = model.cases.front().ids;
    ids.resize(std::min<size_t>(ids.size(), 40));
    for (const auto& [mask, heads] : model.masks) {
      SCOPED_TRACE(model.name + " " + mask);
      ModelRunner compact = Load(backend.get(), model, heads, KvDtype::kF32);
      const size_t variant =
          base.AddVariant({.mask = heads, .kv_dtype = KvDtype::kF32});
      ModelRunner::Sequence gated{.variant = variant, .gates = gates};
      ModelRunner::Sequence plain{.variant = variant};
      const std::vector<LogitsRow> together =
          base.Step({{&gated, ids, 1}, {&plain, ids, 1}});
      ModelRunner::Sequence alone{.gates = gates};
      EXPECT_TRUE(SameBits({together[0]}, compact.Step({{&alone, ids, 1}})));
      EXPECT_TRUE(SameBits({together[1]}, {compact.RunAlone(ids, 100).back()}));
    }
  }
}

}  // namespace
}  // namespace headcount
