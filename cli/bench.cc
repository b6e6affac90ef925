#include "cli/bench.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/interrupt.h"
#include "cli/load.h"
#include "cli/number_flags.h"
#include "cli/open_calls.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/statistics.h"
#include "cli/table.h"
#include "headcount/v1/model.grpc.pb.h"

namespace headcount {
namespace {

struct BenchOptions {
  ClientOptions client;
  OutputFormat output = OutputFormat::kTable;
  LoadOptions load;
  int32_t warmup = 1;
};

void AddFlags(CLI::App& app, BenchOptions* options) {
  constexpr int32_t kMost = 1 << 20;
  LoadOptions* const load = &options->load;
  AddNumber(app, "--streams", &load->streams, {1, kMost},
            "requests in flight; each stream sends one after the other");
  AddNumber(app, "--requests", &load->requests, {1, kMost}, "requests in all");
  AddNumber(app, "--prompt-tokens", &load->prompt_tokens, {1, kMost},
            "tokens of each prompt: random ids, which no cache has");
  AddNumber(app, "--max-tokens", &load->max_tokens, {1, kMost},
            "tokens that each request generates");
  AddNumber(app, "--warmup", &options->warmup, {0, kMost},
            "requests before the clock starts, one after the other");
  AddNumber(app, "--seed", &load->seed, {}, "same seed, same prompts");
  AddModel(app, &options->load.model);
  AddOutput(app, &options->output);
  AddClientFlags(app, &options->client);
}

// What is measured, in milliseconds, and tokens per second.
struct Report {
  std::vector<double> first, gap, total;
  double prompt_tokens_per_second = 0;     // all streams, wall clock
  double generated_tokens_per_second = 0;  // all streams, wall clock
  double prefill_per_stream = 0;           // prompt tokens / time to the first
  double decode_per_stream = 0;            // 1 / mean gap
};

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

Report MakeReport(const LoadResult& result) {
  Report report;
  double prompt_tokens = 0;
  double generated_tokens = 0;
  for (const Exchange& exchange : result.exchanges) {
    report.first.push_back(absl::ToDoubleMilliseconds(exchange.first));
    report.total.push_back(absl::ToDoubleMilliseconds(exchange.total));
    for (const absl::Duration gap : exchange.gaps) {
      report.gap.push_back(absl::ToDoubleMilliseconds(gap));
    }
    prompt_tokens += static_cast<double>(exchange.prompt.size());
    generated_tokens += static_cast<double>(exchange.tokens.size());
  }
  const double seconds = absl::ToDoubleSeconds(result.wall);
  const double requests = static_cast<double>(result.exchanges.size());
  report.prompt_tokens_per_second = prompt_tokens / seconds;
  report.generated_tokens_per_second = generated_tokens / seconds;
  report.prefill_per_stream =
      1000 * prompt_tokens / requests / Mean(report.first);
  if (!report.gap.empty()) report.decode_per_stream = 1000 / Mean(report.gap);
  return report;
}

Json PercentilesJson(const std::vector<double>& values) {
  return {{"p50", Percentile(values, 50)},
          {"p90", Percentile(values, 90)},
          {"p99", Percentile(values, 99)}};
}

void PrintReportJson(const BenchOptions& options, const LoadResult& result,
                     Console& console) {
  const Report report = MakeReport(result);
  PrintJson(
      console,
      {{"model", options.load.model},
       {"streams", options.load.streams},
       {"requests", options.load.requests},
       {"prompt_tokens", options.load.prompt_tokens},
       {"max_tokens", options.load.max_tokens},
       {"seed", options.load.seed},
       {"wall_seconds", absl::ToDoubleSeconds(result.wall)},
       {"time_to_first_token_ms", PercentilesJson(report.first)},
       {"inter_token_ms", PercentilesJson(report.gap)},
       {"end_to_end_ms", PercentilesJson(report.total)},
       {"prompt_tokens_per_second", report.prompt_tokens_per_second},
       {"generated_tokens_per_second", report.generated_tokens_per_second},
       {"prefill_tokens_per_second_per_stream", report.prefill_per_stream},
       {"decode_tokens_per_second_per_stream", report.decode_per_stream},
       {"token_hash", absl::StrFormat("%016x", HashTokens(result.exchanges))}});
}

void PrintReport(const BenchOptions& options, const LoadResult& result,
                 Console& console) {
  const Report report = MakeReport(result);
  console.out << absl::StrFormat(
      "%d requests on %d streams, %d prompt tokens and %d generated each, "
      "%.2f s\n\n",
      options.load.requests, options.load.streams, options.load.prompt_tokens,
      options.load.max_tokens, absl::ToDoubleSeconds(result.wall));
  Table latency({{"MILLISECONDS"},
                 {"P50", Align::kRight},
                 {"P90", Align::kRight},
                 {"P99", Align::kRight}});
  const std::vector<std::pair<std::string, const std::vector<double>*>> rows = {
      {"time to first token", &report.first},
      {"between tokens", &report.gap},
      {"end to end", &report.total}};
  for (const auto& [name, values] : rows) {
    latency.AddRow({name, absl::StrFormat("%.2f", Percentile(*values, 50)),
                    absl::StrFormat("%.2f", Percentile(*values, 90)),
                    absl::StrFormat("%.2f", Percentile(*values, 99))});
  }
  Table speed({{"TOKENS PER SECOND"},
               {"ALL STREAMS", Align::kRight},
               {"ONE STREAM", Align::kRight}});
  speed.AddRow({"prompt",
                absl::StrFormat("%.0f", report.prompt_tokens_per_second),
                absl::StrFormat("%.0f", report.prefill_per_stream)});
  speed.AddRow({"generated",
                absl::StrFormat("%.0f", report.generated_tokens_per_second),
                absl::StrFormat("%.0f", report.decode_per_stream)});
  console.out << latency.Render() << "\n"
              << speed.Render() << "\ntoken hash "
              << absl::StrFormat("%016x", HashTokens(result.exchanges)) << "\n";
}

// The model's name and vocabulary, which the prompts are drawn from.
absl::Status AskModel(const Client& client, OpenCalls* calls,
                      LoadOptions* load) {
  OpenCalls::Call call(calls, client);
  v1::GetModelRequest request;
  request.set_name(load->model);
  v1::GetModelResponse response;
  const auto stub = v1::ModelService::NewStub(client.channel());
  const absl::Status status =
      client.Check(stub->GetModel(call.context(), request, &response));
  if (!status.ok()) return status;
  load->model = response.model().name();
  load->vocab = response.model().vocab_size();
  return absl::OkStatus();
}

absl::Status Bench(BenchOptions options, Console& console) {
  OpenCalls calls;
  const Interrupt interrupt([&calls] { calls.CancelAll(); });
  const Client client(options.client);
  if (absl::Status status = AskModel(client, &calls, &options.load);
      !status.ok()) {
    return status;
  }
  if (options.load.vocab < 1) {
    return absl::InternalError("the server names no vocabulary size");
  }
  if (options.warmup > 0) {
    LoadOptions warmup = options.load;
    warmup.streams = 1;
    warmup.requests = options.warmup;
    const absl::StatusOr<LoadResult> ignored =
        RunLoad(warmup, client, &calls, [](int) {});
    if (!ignored.ok()) return ignored.status();
  }
  absl::StatusOr<LoadResult> result = absl::UnknownError("");
  {
    Progress progress(console, "requests", options.load.requests);
    result = RunLoad(options.load, client, &calls,
                     [&progress](int done) { progress.Show(done); });
  }
  if (!result.ok()) return result.status();
  if (options.output == OutputFormat::kJson) {
    PrintReportJson(options, *result, console);
  } else {
    PrintReport(options, *result, console);
  }
  return absl::OkStatus();
}

}  // namespace

Command BenchCommand(CLI::App& root) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App& app = AddCommand(
      root, "bench", "latency and throughput under load, and a token hash");
  AddFlags(app, options.get());
  app.footer(
      "The hash is over every generated token (greedy, to --max-tokens): a\n"
      "change that is meant to be faster only must not change it. It does not\n"
      "depend on --streams.\n\n" +
      Examples({
          {"one user", "headcount bench --streams 1 --requests 16"},
          {"sixteen users, for a script",
           "headcount bench --streams 16 --requests 128 --output json"},
          {"prefill alone",
           "headcount bench --prompt-tokens 1024 --max-tokens 1"},
      }));
  return {.app = &app, .run = [options](Console& console) {
            return Bench(*options, console);
          }};
}

}  // namespace headcount
