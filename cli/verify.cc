#include "cli/verify.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/human.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/interrupt.h"
#include "cli/labelled_texts.h"
#include "cli/number_flags.h"
#include "cli/open_calls.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/prune_flags.h"
#include "cli/prune_view.h"
#include "cli/served_answers.h"
#include "cli/statistics.h"
#include "cli/table.h"
#include "headcount/v1/model.pb.h"
#include "prune/comparison.h"

namespace headcount {
namespace {

struct VerifyOptions {
  ClientOptions client;
  OutputFormat output = OutputFormat::kTable;
  std::string model;
  std::string against;
  std::string data;
  std::string field;
  std::string split;
  PromptFrame frame;
  std::string max_loss;
  std::optional<double> min_agreement;
  std::optional<double> max_kv_bytes;
  double max_kl = 0;  // 0: not checked
  double max_latency = 0;
  uint64_t seed = 1;
};

void AddThresholds(CLI::App& app, VerifyOptions* options) {
  const std::string group = "Thresholds, each a reason to exit with 1";
  app.add_option("--max-loss", options->max_loss,
                 "most that may be lost, with 95 % confidence: points of "
                 "accuracy (1pt, the default), or with targets nats a token "
                 "(0.05nats, the default)")
      ->type_name("LOSS")
      ->group(group);
  AddShare(
      app, "--min-agreement",
      [options](double share) { options->min_agreement = share; },
      "least share of examples with the same label")
      ->group(group);
  AddNumber(app, "--max-kl", &options->max_kl, {.least = 0},
            "most KL divergence of the labels' probabilities, mean in nats, "
            "upper end of its 95 % interval; 0: any")
      ->type_name("NATS")
      ->group(group);
  AddShare(
      app, "--max-kv-bytes",
      [options](double share) { options->max_kv_bytes = share; },
      "most KV bytes a token, of the other model's")
      ->group(group);
  AddNumber(app, "--max-latency", &options->max_latency, {.least = 0},
            "most median latency, as a ratio to the other model's; 0: any")
      ->type_name("RATIO")
      ->group(group);
}

void AddVerifyFlags(CLI::App& app, VerifyOptions* options) {
  app.add_option("MODEL", options->model, "the pruned model")->required();
  app.add_option("--against", options->against, "the dense model")
      ->type_name("NAME")
      ->required();
  app.add_option("--data", options->data,
                 "examples that were not used to prune: JSON lines with "
                 "\"text\" and \"label\" or \"target\"")
      ->type_name("FILE")
      ->required();
  app.add_option("--field", options->field,
                 "field of a line that holds the text; \"text\" or \"body\" "
                 "unless set")
      ->type_name("NAME");
  app.add_option("--split", options->split,
                 "only lines whose \"split\" is this; all unless set")
      ->type_name("NAME");
  app.add_option("--template", options->frame.text,
                 "what stands around a text that has a \"target\", such as "
                 "'<|bos|>{input}<|subject|>'; needs --weights")
      ->type_name("TEXT");
  app.add_option("--weights", options->frame.weights,
                 "the model's folder or .gguf on this machine, for --template")
      ->type_name("PATH");
  AddNumber(app, "--seed", &options->seed, {}, "of the intervals' resampling");
  AddThresholds(app, options);
  AddOutput(app, &options->output);
  AddClientFlags(app, &options->client);
}

// Everything that is compared.
struct Verification {
  v1::Model dense;
  v1::Model pruned;
  Comparison quality;
  ServedPair answers;
  double margin = 0;
  std::vector<std::string> failures;  // thresholds that do not hold
};

absl::StatusOr<std::vector<LabelledText>> ReadExamples(
    const VerifyOptions& options) {
  absl::StatusOr<std::vector<LabelledText>> texts =
      ReadLabelledTexts(options.data, options.field);
  if (!texts.ok()) return texts;
  if (!options.split.empty()) {
    std::erase_if(*texts, [&options](const LabelledText& text) {
      return text.split != options.split;
    });
  }
  if (texts->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.data, ": has no example",
                     options.split.empty() ? "" : " of split ", options.split));
  }
  if (absl::Status status = PutIntoFrame(options.frame, &*texts);
      !status.ok()) {
    return status;
  }
  return texts;
}

// As the examples allow: all have to say the same kind of thing.
absl::StatusOr<Metric> MetricOfExamples(
    const std::vector<LabelledText>& texts) {
  size_t labels = 0;
  size_t targets = 0;
  for (const LabelledText& text : texts) {
    labels += text.label.empty() ? 0 : 1;
    targets += text.target.empty() ? 0 : 1;
  }
  if (targets == texts.size()) return Metric::kLogprob;
  if (labels == texts.size()) return Metric::kAccuracy;
  if (labels + targets == 0) return Metric::kKl;
  return absl::InvalidArgumentError(absl::StrCat(
      labels, " of ", texts.size(), " examples have a \"label\" and ", targets,
      " a \"target\": give all the same"));
}

// What two served models say of a target is how likely it is, nothing else.
absl::Status CheckFlags(const VerifyOptions& options, Metric metric) {
  if (metric != Metric::kLogprob) return absl::OkStatus();
  if (options.min_agreement) {
    return absl::InvalidArgumentError(
        "--min-agreement: of examples with a \"target\" no labels are "
        "compared; use --max-loss, such as 0.05nats");
  }
  if (options.max_kl > 0) {
    return absl::InvalidArgumentError(
        "--max-kl: of examples with a \"target\" only its likelihood is "
        "compared; use --max-loss, such as 0.05nats");
  }
  return absl::OkStatus();
}

double KvShare(const Verification& v) {
  return v.dense.kv_bytes_per_token() > 0
             ? static_cast<double>(v.pruned.kv_bytes_per_token()) /
                   static_cast<double>(v.dense.kv_bytes_per_token())
             : 1;
}

double LatencyRatio(const Verification& v) {
  return Percentile(v.answers.pruned.milliseconds, 50) /
         Percentile(v.answers.dense.milliseconds, 50);
}

void CheckThresholds(const VerifyOptions& options, Verification* v) {
  const Comparison& quality = v->quality;
  const auto fail = [v](std::string what) {
    v->failures.push_back(std::move(what));
  };
  if (Judge(quality, v->margin) != Verdict::kHolds) {
    fail(absl::StrCat("--max-loss: ", Claim(quality, v->margin)));
  }
  if (options.min_agreement && quality.agreement < *options.min_agreement) {
    fail(absl::StrFormat("--min-agreement: %.2f %% of the labels agree",
                         100 * quality.agreement));
  }
  if (options.max_kl > 0 && quality.kl95.high > options.max_kl) {
    fail(absl::StrFormat("--max-kl: %.4f nats, 95 %% interval up to %.4f",
                         quality.kl_mean, quality.kl95.high));
  }
  if (options.max_kv_bytes && KvShare(*v) > *options.max_kv_bytes) {
    fail(absl::StrFormat("--max-kv-bytes: %.1f %% of the other model's",
                         100 * KvShare(*v)));
  }
  if (options.max_latency > 0 && LatencyRatio(*v) > options.max_latency) {
    fail(absl::StrFormat("--max-latency: %.2f times the other model's",
                         LatencyRatio(*v)));
  }
}

std::string RenderVerification(const Verification& v) {
  const Comparison& q = v.quality;
  Table table({{""},
               {Crop(v.dense.name(), 30), Align::kRight},
               {Crop(v.pruned.name(), 30), Align::kRight},
               {"DIFFERENCE", Align::kRight}});
  if (q.metric != Metric::kKl) {
    table.AddRow(
        {q.metric == Metric::kAccuracy ? "accuracy" : "log-likelihood",
         FormatMetric(q.metric, q.dense), FormatMetric(q.metric, q.pruned),
         absl::StrCat(FormatLoss(q.metric, -q.loss),
                      " (95 %: ", FormatLoss(q.metric, -q.loss95.high), " to ",
                      FormatLoss(q.metric, -q.loss95.low), ")")});
  }
  if (q.has_agreement) {
    table.AddRow(
        {"same label", "", "", absl::StrFormat("%.2f %%", 100 * q.agreement)});
  }
  if (q.has_kl) {
    table.AddRow({"KL of labels, nats", "", "",
                  absl::StrFormat("%.4f (95 %%: %.4f to %.4f)", q.kl_mean,
                                  q.kl95.low, q.kl95.high)});
  }
  table.AddRow({"KV bytes a token", FormatCount(v.dense.kv_bytes_per_token()),
                FormatCount(v.pruned.kv_bytes_per_token()),
                absl::StrFormat("%.1f %%", 100 * KvShare(v))});
  for (const double percent : {50.0, 90.0}) {
    const double dense = Percentile(v.answers.dense.milliseconds, percent);
    const double pruned = Percentile(v.answers.pruned.milliseconds, percent);
    table.AddRow({absl::StrFormat("latency p%.0f, ms", percent),
                  absl::StrFormat("%.2f", dense),
                  absl::StrFormat("%.2f", pruned),
                  absl::StrFormat("%.2fx", pruned / dense)});
  }
  return absl::StrCat(q.n, " examples\n\n", table.Render(), "\n",
                      Claim(q, v.margin), "\n");
}

Json LatencyJson(const std::vector<double>& milliseconds) {
  return {{"p50", Percentile(milliseconds, 50)},
          {"p90", Percentile(milliseconds, 90)},
          {"p99", Percentile(milliseconds, 99)}};
}

Json VerificationJson(const Verification& v) {
  return {{"model", v.pruned.name()},
          {"against", v.dense.name()},
          {"quality", ComparisonJson(v.quality)},
          {"claim", Claim(v.quality, v.margin)},
          {"kv_bytes_per_token",
           {v.dense.kv_bytes_per_token(), v.pruned.kv_bytes_per_token()}},
          {"latency_ms",
           {LatencyJson(v.answers.dense.milliseconds),
            LatencyJson(v.answers.pruned.milliseconds)}},
          {"passed", v.failures.empty()},
          {"failures", v.failures}};
}

absl::Status VerifyModel(const VerifyOptions& options, Console& console) {
  OpenCalls calls;
  const Interrupt interrupt([&calls] { calls.CancelAll(); });
  const Client client(options.client);
  const absl::StatusOr<std::vector<LabelledText>> texts = ReadExamples(options);
  if (!texts.ok()) return texts.status();
  const absl::StatusOr<Metric> metric = MetricOfExamples(*texts);
  if (!metric.ok()) return metric.status();
  if (absl::Status status = CheckFlags(options, *metric); !status.ok()) {
    return status;
  }
  const absl::StatusOr<double> margin = ParseLoss(options.max_loss, *metric);
  if (!margin.ok()) return margin.status();
  absl::StatusOr<v1::Model> dense =
      DescribeModel(client, &calls, options.against);
  if (!dense.ok()) return dense.status();
  absl::StatusOr<v1::Model> pruned =
      DescribeModel(client, &calls, options.model);
  if (!pruned.ok()) return pruned.status();

  Verification v;
  v.dense = *std::move(dense);
  v.pruned = *std::move(pruned);
  v.margin = *margin;
  {
    Progress progress(console, "examples", static_cast<int64_t>(texts->size()));
    absl::StatusOr<ServedPair> answers =
        AskBoth(client, &calls, v.dense.name(), v.pruned.name(), *texts,
                *metric, [&progress](int64_t done) { progress.Show(done); });
    if (!answers.ok()) return answers.status();
    v.answers = *std::move(answers);
  }
  std::vector<std::string> truth;
  for (const LabelledText& text : *texts) truth.push_back(text.label);
  v.quality = Compare(v.answers.dense.outcomes, v.answers.pruned.outcomes,
                      truth, *metric, options.seed);
  v.quality.has_kl = *metric != Metric::kLogprob;
  CheckThresholds(options, &v);
  if (options.output == OutputFormat::kJson) {
    PrintJson(console, VerificationJson(v));
  } else {
    console.out << RenderVerification(v);
  }
  if (v.failures.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrJoin(v.failures, "; "));
}

}  // namespace

Command VerifyCommand(CLI::App& root) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App& app = AddCommand(
      root, "verify",
      "compare a pruned model with the dense one; fails over a threshold");
  AddVerifyFlags(app, options.get());
  app.footer(
      "Both models are served by the same server, and asked in turns, one\n"
      "example a call. Exits with 0 if every threshold holds, else with 1: a\n"
      "pipeline can deploy on it. A loss that the examples are too few to "
      "bound\n"
      "does not hold.\n\n" +
      Examples({
          {"may the pruned model go out?",
           "headcount verify mail-half --against mail --data test.jsonl \\\n"
           "      --max-loss 1pt --max-kv-bytes 60%"},
          {"for a script",
           "headcount verify mail-half --against mail --data test.jsonl \\\n"
           "      --min-agreement 98% --output json"},
      }));
  return {.app = &app, .run = [options](Console& console) {
            return VerifyModel(*options, console);
          }};
}

}  // namespace headcount
