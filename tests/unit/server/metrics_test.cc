#include "server/metrics.h"

#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"
#include "served_models.h"
#include "server/engine_collector.h"
#include "server/process_collector.h"

namespace headcount {
namespace {

std::vector<ServedModel> TwoModels() {
  std::vector<ServedModel> models;
  models.push_back(MakeServedModel("a", 0));
  models.push_back(MakeServedModel("b", 1));
  return models;
}

EngineSnapshot SomeSnapshot() {
  EngineSnapshot snapshot;
  snapshot.models = {
      {.running = 2,
       .waiting = 1,
       .kv = {.used = 1536, .lent = 2048, .floor = 1024, .ceiling = 4096},
       .kv_tokens = 24,
       .prefix_tokens = 200,
       .prefix_hit_tokens = 64,
       .preemptions = 3},
      {.running = 1, .waiting = 4, .kv = {.used = 768}, .kv_tokens = 16}};
  snapshot.pool = {.used = 2304,
                   .cached = 0,
                   .free = 6912,
                   .reserved = 784,
                   .fragmented = 512};
  snapshot.pool_capacity = 10000;
  snapshot.prefix_evictions = 5;
  return snapshot;
}

// The samples of an exposition: "name{labels}" to value.
std::map<std::string, double> Samples(
    const std::vector<prometheus::MetricFamily>& families) {
  std::map<std::string, double> samples;
  const std::string text = prometheus::TextSerializer().Serialize(families);
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (line.empty() || line[0] == '#') continue;
    const size_t space = line.rfind(' ');
    double value = 0;
    EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
    EXPECT_TRUE(
        samples.emplace(std::string(line.substr(0, space)), value).second)
        << "twice: " << line;
  }
  return samples;
}

TEST(SnapshotFamilies, SayWhatIsTrueNow) {
  const ModelTable models(TwoModels());
  auto samples = Samples(
      SnapshotFamilies(SomeSnapshot(), models, "cpu", ServerState::kServing));
  EXPECT_EQ(samples["headcount_server_state{state=\"serving\"}"], 1);
  EXPECT_EQ(samples["headcount_server_state{state=\"draining\"}"], 0);
  EXPECT_EQ(samples["headcount_requests_running{model=\"a\"}"], 2);
  EXPECT_EQ(samples["headcount_requests_waiting{model=\"b\"}"], 4);
  EXPECT_EQ(samples["headcount_scheduler_requests_running"], 3);
  EXPECT_EQ(samples["headcount_scheduler_requests_waiting"], 5);
  EXPECT_EQ(samples["headcount_preemptions_total{model=\"a\"}"], 3);
  EXPECT_EQ(samples["headcount_prefix_lookup_tokens_total{model=\"a\"}"], 200);
  EXPECT_EQ(samples["headcount_cached_prompt_tokens_total{model=\"a\"}"], 64);
  EXPECT_EQ(samples["headcount_kv_block_evictions_total"], 5);
  EXPECT_EQ(samples["headcount_step_running_seconds"], 0);
  EXPECT_EQ(samples["headcount_kv_pool_fragmented_bytes{device=\"cpu\"}"], 512);
  EXPECT_EQ(samples["headcount_kv_lent_bytes{model=\"a\",device=\"cpu\"}"],
            2048);
  EXPECT_EQ(samples["headcount_kv_floor_bytes{model=\"a\",device=\"cpu\"}"],
            1024);
  EXPECT_EQ(samples["headcount_kv_ceiling_bytes{model=\"a\",device=\"cpu\"}"],
            4096);
  EXPECT_EQ(samples["headcount_kv_pool_usage_ratio{device=\"cpu\"}"], 0.25);
  EXPECT_EQ(samples["headcount_scheduler_kv_usage_ratio"], 0.25);
  EXPECT_EQ(samples["headcount_kv_bytes{model=\"a\",device=\"cpu\"}"], 1536);
  EXPECT_EQ(samples["headcount_kv_bytes_per_token{model=\"a\"}"], 48);
  // 16 bytes a token less than dense.
  EXPECT_EQ(samples["headcount_kv_saved_bytes{model=\"a\"}"], 16 * 24);
  // 40 tokens of 48 bytes in 2304 bytes of blocks.
  EXPECT_NEAR(samples["headcount_kv_fragmentation_ratio{device=\"cpu\"}"],
              1 - 40 * 48 / 2304.0, 1e-9);
  EXPECT_EQ(samples["headcount_model_heads{model=\"a\",state=\"active\"}"], 9);
  EXPECT_EQ(samples["headcount_model_heads{model=\"a\",state=\"pruned\"}"], 3);
  EXPECT_EQ(samples["headcount_model_state{model=\"b\",state=\"ready\"}"], 1);
  EXPECT_EQ(samples["headcount_model_load_seconds{model=\"a\"}"], 0.25);
  EXPECT_EQ(samples["headcount_kv_cache_info{device=\"cpu\",block_size=\"16\","
                    "num_gpu_blocks=\"13\",dtype=\"f16\"}"],
            1);
  EXPECT_EQ(samples["headcount_model_info{model=\"a\",architecture=\"llama\","
                    "dtype=\"f16\",layers=\"2\",heads=\"12\",kv_heads=\"4\","
                    "head_dim=\"4\",mask=\"0badcafe\",variant_of=\"\"}"],
            1);
}

TEST(SnapshotFamilies, ModelsThatDidNotLoadHaveAStateAndNothingElse) {
  const ModelTable models(
      TwoModels(),
      {{.name = "bad", .status = absl::InternalError("x"), .error = "x"}});
  auto samples = Samples(
      SnapshotFamilies(SomeSnapshot(), models, "cpu", ServerState::kDraining));
  int of_bad = 0;
  for (const auto& [name, value] : samples) {
    of_bad += absl::StrContains(name, "model=\"bad\"") ? 1 : 0;
  }
  EXPECT_EQ(of_bad, 5);
  for (const char* model : {"a", "b", "bad"}) {
    const bool failed = absl::string_view(model) == "bad";
    const auto state = [&](const char* name) {
      return samples.at(absl::StrCat("headcount_model_state{model=\"", model,
                                     "\",state=\"", name, "\"}"));
    };
    EXPECT_EQ(state("failed"), failed ? 1 : 0) << model;
    EXPECT_EQ(state("draining"), failed ? 0 : 1) << model;
    EXPECT_EQ(state("ready"), 0) << model;
    EXPECT_EQ(state("loading"), 0) << model;
  }
}

TEST(SnapshotFamilies, PoolStatesSumToTheCapacity) {
  const ModelTable models(TwoModels());
  double sum = 0;
  const auto samples = Samples(
      SnapshotFamilies(SomeSnapshot(), models, "cpu", ServerState::kServing));
  for (const auto& [name, value] : samples) {
    if (absl::StartsWith(name, "headcount_kv_pool_bytes{")) sum += value;
  }
  EXPECT_EQ(sum,
            samples.at("headcount_kv_pool_capacity_bytes{device=\"cpu\"}"));
}

TEST(StepGraphFamily, TellsTheResultsApart) {
  auto samples = Samples({StepGraphFamily(
      {.replayed = 70, .updated = 5, .built = 3, .direct = 20})});
  const auto steps = [&](const char* result) {
    return samples[absl::StrCat("headcount_step_graphs_total{result=\"", result,
                                "\"}")];
  };
  EXPECT_EQ(steps("replayed"), 70);
  EXPECT_EQ(steps("updated"), 5);
  EXPECT_EQ(steps("built"), 3);
  EXPECT_EQ(steps("direct"), 20);
}

TEST(Metrics, CountEachEndingOnce) {
  const ModelTable models(TwoModels());
  Metrics metrics(models);
  Ending ending;
  ending.prompt_tokens = 10;
  ending.generated_tokens = 5;
  ending.submitted = absl::UnixEpoch();
  ending.scheduled = ending.submitted + absl::Milliseconds(30);
  ending.first_token = ending.scheduled + absl::Milliseconds(100);
  ending.ended = ending.first_token + absl::Milliseconds(400);
  metrics.RequestEnded(0, Outcome::kStop, ending);
  metrics.RequestEnded(0, Outcome::kCancelled, ending);
  metrics.RequestRejected(1, Reason::kQueueFull);
  metrics.RequestRejected(Metrics::kNoModel, Reason::kUnknownModel);
  metrics.RequestRejected(1, Reason::kDeadline);

  auto samples = Samples(metrics.registry()->Collect());
  const auto total = [&](const char* model, const char* outcome) {
    return samples[absl::StrCat("headcount_requests_total{model=\"", model,
                                "\",outcome=\"", outcome, "\"}")];
  };
  EXPECT_EQ(total("a", "stop"), 1);
  EXPECT_EQ(total("a", "cancelled"), 1);
  EXPECT_EQ(total("a", "length"), 0);
  EXPECT_EQ(total("b", "rejected"), 1);
  EXPECT_EQ(total("b", "deadline"), 1);
  EXPECT_EQ(total("_other", "rejected"), 1);
  EXPECT_EQ(samples["headcount_requests_rejected_total{model=\"b\","
                    "reason=\"queue_full\"}"],
            1);
  EXPECT_EQ(samples["headcount_requests_rejected_total{model=\"_other\","
                    "reason=\"invalid\"}"],
            1);
  EXPECT_EQ(samples["headcount_prompt_tokens_total{model=\"a\"}"], 20);
  EXPECT_EQ(samples["headcount_generated_tokens_total{model=\"a\"}"], 10);
  // Of the one that succeeded.
  EXPECT_NEAR(samples["headcount_time_to_first_token_seconds_sum{model=\"a\"}"],
              0.13, 1e-9);
  EXPECT_NEAR(
      samples["headcount_time_per_output_token_seconds_sum{model=\"a\"}"], 0.1,
      1e-9);
  EXPECT_NEAR(samples["headcount_request_prefill_seconds_sum{model=\"a\"}"],
              0.1, 1e-9);
  EXPECT_NEAR(samples["headcount_request_decode_seconds_sum{model=\"a\"}"], 0.4,
              1e-9);
  // Of both.
  EXPECT_NEAR(samples["headcount_request_queue_seconds_sum{model=\"a\"}"], 0.06,
              1e-9);
}

TEST(Metrics, TellStepsApart) {
  const ModelTable models(TwoModels());
  Metrics metrics(models);
  StepReport report;
  report.sequences = 3;
  report.prefill_tokens = 100;
  metrics.StepDone(report);
  report.decode_tokens = 2;
  metrics.StepDone(report);
  report.prefill_tokens = 0;
  Metrics::ObserveStep(&metrics, report);
  auto samples = Samples(metrics.registry()->Collect());
  EXPECT_EQ(samples["headcount_step_tokens_sum{phase=\"prefill\"}"], 100);
  EXPECT_EQ(samples["headcount_step_tokens_sum{phase=\"mixed\"}"], 102);
  EXPECT_EQ(samples["headcount_step_tokens_sum{phase=\"decode\"}"], 2);
}

TEST(Metrics, HaveNoSeriesForWhatClientsMakeUp) {
  const ModelTable models(TwoModels());
  Metrics metrics(models);
  metrics.RequestRejected(Metrics::kNoModel, Reason::kUnknownModel);
  const size_t before = Samples(metrics.registry()->Collect()).size();
  for (int i = 0; i < 100; ++i) {
    metrics.RequestRejected(Metrics::kNoModel, Reason::kUnknownModel);
  }
  EXPECT_EQ(Samples(metrics.registry()->Collect()).size(), before);
}

TEST(Metrics, CountCalls) {
  const ModelTable models(TwoModels());
  Metrics metrics(models);
  metrics.CallStarted(RpcMethod::kGenerate);
  metrics.CallHandled(RpcMethod::kGenerate, grpc::StatusCode::INVALID_ARGUMENT,
                      absl::Milliseconds(3));
  auto samples = Samples(metrics.registry()->Collect());
  const std::string labels =
      "grpc_method=\"Generate\",grpc_service=\"headcount.v1.InferenceService\","
      "grpc_type=\"server_stream\"";
  EXPECT_EQ(samples[absl::StrCat("grpc_server_started_total{", labels, "}")],
            1);
  EXPECT_EQ(samples[absl::StrCat("grpc_server_handled_total{grpc_code=\""
                                 "InvalidArgument\",",
                                 labels, "}")],
            1);
  EXPECT_EQ(
      samples[absl::StrCat("grpc_server_handling_seconds_count{", labels, "}")],
      1);
}

TEST(ProcessCollector, HasTheStandardNames) {
  auto samples = Samples(ProcessCollector().Collect());
  for (const char* name :
       {"process_cpu_seconds_total", "process_resident_memory_bytes",
        "process_virtual_memory_bytes", "process_open_fds", "process_max_fds",
        "process_start_time_seconds"}) {
    EXPECT_EQ(samples.count(name), 1u) << name;
  }
  EXPECT_GT(samples["process_resident_memory_bytes"], 1 << 20);
  EXPECT_GT(samples["process_start_time_seconds"], 1.6e9);
}

}  // namespace
}  // namespace headcount
