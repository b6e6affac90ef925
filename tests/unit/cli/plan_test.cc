// `headcount plan`, and the numbers that it makes of a plan and a device.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cli/gpus.h"
#include "cli/roofline.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "heads/capacity_plan.h"
#include "recorder.h"
#include "tests/unit/mailroom.h"

namespace headcount {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kConfigs[] = HEADCOUNT_SOURCE_DIR "/tests/data/configs/";

std::string ConfigOf(const std::string& name) {
  return kConfigs + name + ".json";
}

Json Planned(const std::vector<std::string>& flags) {
  std::vector<std::string> args = {"plan", "--output", "json"};
  args.insert(args.end(), flags.begin(), flags.end());
  Recorder recorder;
  EXPECT_EQ(recorder.Run(args), 0) << recorder.err.str();
  return ParseOutput(recorder.out.str());
}

TEST(PlanCommandTest, AGpuHasWhatItsWeightsLeave) {
  const Json json =
      Planned({ConfigOf("llama-3.1-8b"), "--gpu", "h100", "--context", "32k"});
  const Json& plan = json["plan"];
  EXPECT_EQ(plan["parameters"], 8030261248);
  EXPECT_EQ(plan["weight_bytes"], 16060522496);
  EXPECT_EQ(plan["kv_bytes_per_token"], 131072);
  // floor(0.9 x 80 GiB) - weights - 1 GiB.
  EXPECT_EQ(plan["kv_pool_bytes"], 77309411328 - 16060522496 - 1073741824);
  EXPECT_EQ(plan["sequences_undivided"], 14);
  EXPECT_EQ(plan["sequences_admitted"], 13);  // 14 fit but for the watermark
  EXPECT_EQ(plan["sequences_held"], 14);
  EXPECT_EQ(json["all_heads"], plan);
}

TEST(PlanCommandTest, HalfOfTheGroupsAndEightBits) {
  const Json json =
      Planned({ConfigOf("llama-3.1-8b"), "--gpu", "h100", "--context", "32k",
               "--keep", "50", "--kv", "int8"});
  EXPECT_EQ(json["all_heads"]["kv_heads"], 256);
  EXPECT_EQ(json["plan"]["kv_heads"], 128);
  EXPECT_EQ(json["plan"]["query_heads"], 512);
  EXPECT_EQ(json["plan"]["kv_bytes_per_token"], 33280);
  EXPECT_EQ(json["plan"]["parameters"], 7359172608);
}

TEST(PlanCommandTest, SeveralGpusHoldAPartOfEveryLayer) {
  const std::vector<std::string> flags = {ConfigOf("llama-3.1-70b"), "--gpu",
                                          "h100", "--context", "32k"};
  EXPECT_EQ(Planned(flags)["plan"]["sequences_admitted"], 0)
      << "one GPU does not even hold the weights";
  std::vector<std::string> four = flags;
  four.insert(four.end(), {"--gpus", "4"});
  const Json json = Planned(four);
  const Json& plan = json["plan"];
  EXPECT_EQ(json["gpus"], 4);
  EXPECT_EQ(plan["query_heads"], 80 * 16);
  EXPECT_EQ(plan["kv_heads"], 80 * 2);
  EXPECT_EQ(plan["kv_bytes_per_token"], 80 * 2 * 2 * 128 * 2);
  // 2 V d / 4; 80 layers of (2 16 + 2 2) d D, 3 d f / 4 and two norms; a norm.
  EXPECT_EQ(plan["parameters"], 17639415808);
  // All of the model but for the norms, which each has whole.
  EXPECT_EQ(plan["parameters"].get<int64_t>() * 4 - 3 * (2 * 80 + 1) * 8192,
            70553706496);
}

TEST(PlanCommandTest, SeveralGpusNeedAName) {
  Recorder recorder;
  EXPECT_EQ(recorder.Run({"plan", ConfigOf("llama-3.1-8b"), "--gpus", "2"}), 2);
  EXPECT_THAT(recorder.err.str(), HasSubstr("--gpu h100"));
}

TEST(PlanCommandTest, SaysWhatGpusTellEachOther) {
  Recorder recorder;
  ASSERT_EQ(recorder.Run({"plan", ConfigOf("llama-3.1-8b"), "--gpu", "h100",
                          "--gpus", "2", "--context", "32k"}),
            0);
  EXPECT_THAT(recorder.out.str(),
              AllOf(HasSubstr("fullest of 2 GPUs"), HasSubstr("65 times"),
                    HasSubstr("ncclAllReduce")));
}

TEST(PlanCommandTest, ReadsModelsAndMasks) {
  const Json json = Planned({kMailroom, "--mask-file",
                             std::string(kMailroom) + "/heads_half.json",
                             "--kv-pool", "64MiB", "--context", "1024"});
  EXPECT_EQ(json["all_heads"]["kv_bytes_per_token"], 3072);
  EXPECT_EQ(json["plan"]["kv_bytes_per_token"], 1536);
  EXPECT_EQ(json["plan"]["kv_pool_bytes"], 64 << 20);
  EXPECT_EQ(json["plan"]["slab_bytes"], 2 << 20);
  EXPECT_EQ(json["plan"]["at_best"]["device"], "this CPU");
  EXPECT_EQ(json["plan"]["at_best"]["binds"], "");
}

TEST(PlanCommandTest, SaysWhatTheNumbersMean) {
  Recorder recorder;
  ASSERT_EQ(recorder.Run({"plan", ConfigOf("llama-3.1-8b"), "--gpu", "h100",
                          "--context", "32k", "--keep", "50"}),
            0);
  EXPECT_THAT(recorder.out.str(),
              AllOf(HasSubstr("ALL HEADS, f16"), HasSubstr("PLAN, f16"),
                    HasSubstr("-50.0 %"), HasSubstr("Their ends"),
                    HasSubstr("watermark"), HasSubstr("What binds on h100: ")));
  Recorder cpu;
  ASSERT_EQ(cpu.Run({"plan", ConfigOf("smollm2-135m")}), 0);
  EXPECT_THAT(cpu.out.str(),
              AllOf(HasSubstr("What binds on this CPU is not known"),
                    Not(HasSubstr("CHANGE"))));
  Recorder gpt2;
  ASSERT_EQ(gpt2.Run({"plan", ConfigOf("gpt2")}), 0);
  EXPECT_THAT(gpt2.out.str(), HasSubstr("but not served yet"));
  Recorder bert;
  ASSERT_EQ(bert.Run({"plan", ConfigOf("bert-base-uncased")}), 0);
  EXPECT_THAT(bert.out.str(), Not(HasSubstr("KV pool")));
}

TEST(PlanCommandTest, RefusesWhatMakesNoSense) {
  const std::string llama = ConfigOf("llama-3.1-8b");
  const struct {
    std::vector<std::string> args;
    int code;
    const char* error;
  } kCases[] = {
      {{}, 2, "MODEL"},
      {{llama, "--gpu", "h1000"}, 2, "is not one of b200"},
      {{llama, "--context", "32x"}, 2, "write for example 4096 or 32k"},
      {{llama, "--context", "0"}, 2, "--context"},
      {{llama, "--context", "129k"}, 1, "are over the model's 131072"},
      {{llama, "--keep", "101"}, 2, "--keep"},
      {{llama, "--keep", "50", "--mask-file", "x"}, 2, "--keep"},
      {{llama, "--sweep", "--kv", "int8"}, 2, "--sweep"},
      {{llama, "--mask-file", "/nowhere.json"}, 1, "/nowhere.json"},
      {{llama, "--mask-file", std::string(kMailroom) + "/heads_half.json"},
       1,
       "base.layers"},
      {{"/nowhere"}, 1, "/nowhere"},
  };
  for (const auto& [args, code, error] : kCases) {
    std::vector<std::string> all = {"plan"};
    all.insert(all.end(), args.begin(), args.end());
    Recorder recorder;
    EXPECT_EQ(recorder.Run(all), code) << error;
    EXPECT_THAT(recorder.err.str(), HasSubstr(error));
  }
}

TEST(PlanCommandTest, SweepsGroupsAndDtypes) {
  const Json sweep = Planned({ConfigOf("llama-3.1-8b"), "--gpu", "h100",
                              "--context", "32k", "--sweep"})["sweep"];
  ASSERT_EQ(sweep.size(), 40u);
  EXPECT_EQ(sweep[0]["kept"], 1.0);
  EXPECT_EQ(sweep[0]["kv_dtype"], "f16");
  EXPECT_EQ(sweep[39]["kv_dtype"], "int4");
  for (size_t i = 0; i < sweep.size(); ++i) {
    // Fewer groups, more sequences.
    if (i % 10 == 0) continue;
    EXPECT_GE(sweep[i]["sequences_admitted"],
              sweep[i - 1]["sequences_admitted"]);
  }
}

TEST(PlanCommandTest, WritesAPlotThatNeedsNothingElse) {
  const std::string path =
      (std::filesystem::path(testing::TempDir()) / "headcount_plan_test.html")
          .string();
  Recorder recorder;
  ASSERT_EQ(recorder.Run({"plan", ConfigOf("llama-3.1-8b"), "--gpu", "h100",
                          "--context", "32k", "--html", path}),
            0);
  EXPECT_THAT(recorder.err.str(), HasSubstr("wrote"));
  std::stringstream html;
  html << std::ifstream(path).rdbuf();
  std::filesystem::remove(path);
  EXPECT_THAT(html.str(), AllOf(HasSubstr("<svg"), HasSubstr("KV groups kept"),
                                HasSubstr("<title>int4, 10 % of KV groups: "),
                                HasSubstr("Tokens per second, at most"),
                                HasSubstr("prefers-color-scheme: dark"),
                                Not(HasSubstr("<script")),
                                Not(HasSubstr("http")), Not(HasSubstr("nan"))));
  Recorder nowhere;
  EXPECT_EQ(nowhere.Run({"plan", ConfigOf("gpt2"), "--html", "/nowhere/x"}), 3);
}

v1::CapacityPlan MadeUp(int64_t admitted, int64_t kv) {
  v1::CapacityPlan plan;
  plan.set_weight_bytes(1000);
  plan.set_attended_bytes(kv);
  plan.set_mlp_flops(80);
  plan.set_output_flops(20);
  plan.set_prefill_flops(5000);
  plan.set_sequences_admitted(admitted);
  plan.set_sequences_scheduled(256);
  return plan;
}

TEST(RooflineTest, AStepIsAsLongAsItsSlowerHalf) {
  const Device device{.name = "d", .bytes_per_second = 100, .flops = 200};
  // Reads 1000 + 10 x 10 bytes, computes 10 x 100.
  const Roofline few = RooflineOf(MadeUp(10, 10), device);
  EXPECT_EQ(few.read_seconds, 11);
  EXPECT_EQ(few.compute_seconds, 5);
  EXPECT_NEAR(few.tokens_per_second, 10 / 11.0, 1e-12);
  EXPECT_EQ(few.prefill_seconds, 25);
  EXPECT_EQ(few.binds, "memory");
  // 10 + B / 10 = B / 2 at B = 25.
  EXPECT_EQ(few.compute_bound_from, 25);
  EXPECT_EQ(RooflineOf(MadeUp(100, 10), device).binds, "compute");
  // 50 bytes take as long as 100 operations: never.
  const Roofline wide = RooflineOf(MadeUp(100, 50), device);
  EXPECT_EQ(wide.compute_bound_from, 0);
  EXPECT_EQ(wide.binds, "bandwidth");
  EXPECT_EQ(RooflineOf(MadeUp(0, 50), device).binds, "memory");
  EXPECT_EQ(RooflineOf(MadeUp(1000, 0),
                       {.name = "d", .bytes_per_second = 100, .flops = 1e6})
                .binds,
            "scheduler");
  EXPECT_EQ(RooflineOf(MadeUp(10, 10), {.name = "d"}).binds, "");
}

TEST(RooflineTest, AnEncoderAnswersASequenceInOneStep) {
  v1::CapacityPlan plan = MadeUp(kNoLimit, 0);
  plan.set_output_flops(0);
  plan.set_context_tokens(50);
  // Reads 1000 bytes, computes 5000 operations.
  const Device device{.name = "d", .bytes_per_second = 100, .flops = 200};
  const Roofline roof = RooflineOf(plan, device);
  EXPECT_EQ(roof.sequences, 1);
  EXPECT_EQ(roof.read_seconds, 10);
  EXPECT_EQ(roof.compute_seconds, 25);
  EXPECT_EQ(roof.tokens_per_second, 2);
  EXPECT_EQ(roof.binds, "compute");
}

TEST(GpusTest, AreNamedOnceAndFound) {
  for (const Device& gpu : KnownGpus()) {
    ASSERT_NE(FindGpu(gpu.name), nullptr);
    EXPECT_EQ(FindGpu(gpu.name), &gpu);
    EXPECT_GT(gpu.memory_bytes, 0);
    EXPECT_GT(gpu.flops, gpu.bytes_per_second);
  }
  EXPECT_EQ(FindGpu("this CPU"), nullptr);
  EXPECT_GT(ThisCpu().memory_bytes, int64_t{1} << 28);
}

}  // namespace
}  // namespace headcount
