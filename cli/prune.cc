#include "cli/prune.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/heads_json.h"
#include "cli/interrupt.h"
#include "cli/open_calls.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/prune_data.h"
#include "cli/prune_flags.h"
#include "cli/prune_options.h"
#include "cli/prune_view.h"
#include "cli/rpc_gate_scorer.h"
#include "cli/score_journal.h"
#include "cli/served_answers.h"
#include "format/checkpoint.h"
#include "format/sha256.h"
#include "headcount/v1/model.pb.h"
#include "model/heads_file.h"
#include "model/model_config.h"
#include "prune/prune_pipeline.h"

namespace headcount {
namespace {

// What is known of the weights if they are on this machine.
struct LocalWeights {
  std::optional<ModelConfig> config;
  std::string sha256;
};

absl::StatusOr<LocalWeights> ReadWeights(const std::string& path) {
  LocalWeights weights;
  if (path.empty()) return weights;
  absl::StatusOr<ModelConfig> config = ReadModelConfig(path);
  if (!config.ok()) return config.status();
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<std::string> sha256 = checkpoint->Sha256();
  if (!sha256.ok()) return sha256.status();
  weights.config = *std::move(config);
  weights.sha256 = *std::move(sha256);
  return weights;
}

std::string TargetInWords(const PruneTarget& target, Metric metric,
                          UnitKind unit) {
  if (!target.keep) {
    return absl::StrCat("as little as a loss of ",
                        FormatLoss(metric, target.max_loss), " allows");
  }
  return absl::StrFormat("%.4g %% of the %s", 100 * *target.keep,
                         unit == UnitKind::kGroup ? "KV bytes" : "query heads");
}

absl::StatusOr<PruneTask> MakeTask(const PruneOptions& options,
                                   const v1::Model& model,
                                   const PruneData& data,
                                   const LocalWeights& weights) {
  PruneTask task;
  task.model = model.name();
  task.layers = PrunableModelOf(model);
  task.unit = options.unit == "head" ? UnitKind::kHead : UnitKind::kGroup;
  if (options.kv_bytes && task.unit == UnitKind::kHead) {
    return absl::InvalidArgumentError(
        "--kv-bytes: single query heads free no bytes of the cache; use --keep "
        "or --unit group");
  }
  task.target.keep = options.kv_bytes ? options.kv_bytes : options.keep;
  const absl::StatusOr<double> loss = ParseLoss(options.max_loss, data.metric);
  if (!loss.ok()) return loss.status();
  task.target.max_loss = *loss;
  task.target.step = options.step;
  task.metric = data.metric;
  task.seed = options.seed;
  for (size_t split = 0; split < data.splits.size(); ++split) {
    for (const LabelledText& text : data.splits[split]) {
      task.truth[split].push_back(text.label);
    }
  }
  if (weights.config) {
    const ModelConfig& config = *weights.config;
    task.widths = ModelWidths{.hidden = config.hidden,
                              .head_dim = config.head_dim,
                              .vocab = config.vocab,
                              .ffn = {config.ffn.begin(), config.ffn.end()}};
    if (task.widths->ffn.size() != task.layers.size()) {
      return absl::InvalidArgumentError(absl::StrCat("--weights: has ",
                                                     task.widths->ffn.size(),
                                                     " layers, but the served "
                                                     "model has ",
                                                     task.layers.size()));
    }
  }
  return task;
}

// All that scores depend on but the settings, as the journal compares it.
absl::StatusOr<std::string> RunHash(const v1::Model& model,
                                    const PruneTask& task,
                                    const std::vector<ReportSplit>& splits) {
  std::string text = absl::StrCat(
      model.name(), " ", model.architecture(), " ", model.vocab_size(), " ",
      model.weight_bytes(), " ", model.kv_dtype(), " ", model.precision(), " ",
      task.unit == UnitKind::kGroup ? "group" : "head", "\n");
  for (const v1::LayerHeads& layer : model.layers()) {
    absl::StrAppend(&text, absl::StrJoin(layer.query_heads(), ","), "\n");
  }
  for (const ReportSplit& split : splits) {
    absl::StrAppend(&text, split.sha256, "\n");
  }
  return Sha256Hex(text);
}

absl::StatusOr<std::vector<ReportSplit>> DescribeSplits(const PruneData& data) {
  std::vector<ReportSplit> splits;
  for (int i = 0; i < kSplits; ++i) {
    const auto split = static_cast<Split>(i);
    const absl::StatusOr<std::string> hash = HashOf(data.of(split));
    if (!hash.ok()) return hash.status();
    splits.push_back({.name = SplitName(split),
                      .examples = static_cast<int64_t>(data.of(split).size()),
                      .sha256 = *hash});
  }
  return splits;
}

// A file beside the mask: "heads.json" -> "heads.html".
std::string Beside(const std::string& out, const std::string& extension) {
  return std::filesystem::path(out).replace_extension(extension).string();
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text << std::flush;
  if (file) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": cannot be written; name another place"));
}

absl::StatusOr<PruneReport> RunPrune(const PruneOptions& options,
                                     const RpcGateScorer::Source& source,
                                     const PruneTask& task,
                                     const std::vector<ReportSplit>& splits,
                                     Console& console) {
  std::array<int64_t, kSplits> examples = {};
  for (size_t i = 0; i < splits.size(); ++i) examples[i] = splits[i].examples;
  const int64_t planned = PlannedForwards(task, examples);
  Progress progress(console, "texts under a mask", planned);
  RpcGateScorer scorer(source, [&progress, planned](int64_t done) {
    progress.Show(std::min(done, planned));
  });
  absl::StatusOr<PruneReport> report = Prune(task, &scorer);
  if (!report.ok()) return report;
  report->target = TargetInWords(task.target, task.metric, task.unit);
  report->splits = splits;
  report->forwards = scorer.forwards();
  if (source.data->split_by_hash) {
    report->notes.push_back(
        "Texts were put into splits by their SHA-256: 3 of 10 to rank, 3 to "
        "select, 4 to test.");
  }
  if (options.weights.empty()) {
    report->notes.push_back(
        "Without --weights the mask names no SHA-256 of its weights, and the "
        "most that speed can gain is not known.");
  }
  return report;
}

absl::Status WriteResults(const PruneOptions& options,
                          const PruneReport& report, const v1::Model& model,
                          const LocalWeights& weights, Console& console) {
  const std::string page =
      options.report.empty() ? Beside(options.out, ".html") : options.report;
  if (absl::Status status = WriteFile(page, RenderReport(report));
      !status.ok()) {
    return status;
  }
  if (options.output == OutputFormat::kJson) {
    PrintJson(console, PruneJson(report));
  } else {
    console.out << RenderPrune(report);
  }
  console.err << "Report: " << page << "\n";
  if (report.test.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("no mask was written. The smallest of the path: ",
                     Claim(report.path.front().quality, report.margin)));
  }
  const Json mask = HeadsJson(report, model, weights.sha256);
  if (absl::Status status = WriteFile(options.out, mask.dump(1) + "\n");
      !status.ok()) {
    return status;
  }
  if (weights.config) {
    const absl::StatusOr<HeadsFile> read =
        ReadHeadsFile(options.out, *weights.config);
    if (!read.ok()) return read.status();
  }
  console.err << "Mask: " << options.out
              << " (serve it with heads: {mask_file: ...} in the model's "
                 "headcount.yaml)\n";
  return absl::OkStatus();
}

absl::Status PruneModel(const PruneOptions& options, Console& console) {
  OpenCalls calls;
  const Interrupt interrupt([&calls] { calls.CancelAll(); });
  const Client client(options.client);
  const absl::StatusOr<LocalWeights> weights = ReadWeights(options.weights);
  if (!weights.ok()) return weights.status();
  const absl::StatusOr<v1::Model> model =
      DescribeModel(client, &calls, options.model);
  if (!model.ok()) return model.status();
  PruneFiles files = options.files;
  files.frame.weights = options.weights;
  const absl::StatusOr<PruneData> data =
      ReadPruneData(files, {model->labels().begin(), model->labels().end()},
                    options.rank_examples, options.seed);
  if (!data.ok()) return data.status();
  const absl::StatusOr<std::vector<ReportSplit>> splits = DescribeSplits(*data);
  if (!splits.ok()) return splits.status();
  const absl::StatusOr<PruneTask> task =
      MakeTask(options, *model, *data, *weights);
  if (!task.ok()) return task.status();
  const absl::StatusOr<std::string> run = RunHash(*model, *task, *splits);
  if (!run.ok()) return run.status();
  const std::string journal_path = options.journal.empty()
                                       ? Beside(options.out, ".journal")
                                       : options.journal;
  const absl::StatusOr<std::unique_ptr<ScoreJournal>> journal =
      ScoreJournal::Open(journal_path, *run);
  if (!journal.ok()) return journal.status();
  if ((*journal)->read() > 0) {
    console.err << "Going on with " << (*journal)->read() << " scores from "
                << journal_path << "\n";
  }
  const PruneUnits units = MakeUnits(task->layers, task->unit);
  const absl::StatusOr<PruneReport> report =
      RunPrune(options,
               {.client = &client,
                .calls = &calls,
                .model = model->name(),
                .layers = &task->layers,
                .units = &units,
                .data = &*data,
                .journal = journal->get()},
               *task, *splits, console);
  if (!report.ok()) return report.status();
  absl::Status written =
      WriteResults(options, *report, *model, *weights, console);
  if (written.ok() && options.journal.empty()) {
    std::error_code ignored;
    std::filesystem::remove(journal_path, ignored);
  }
  return written;
}

}  // namespace

Command PruneCommand(CLI::App& root) {
  auto options = std::make_shared<PruneOptions>();
  CLI::App& app =
      AddCommand(root, "prune",
                 "find the heads that a task can spare; writes a mask file");
  AddPruneFlags(app, options.get());
  app.footer(
      "Asks a server that runs with --calibration. Every unit is left out\n"
      "alone, and ranked by what that changes in the answers (KL divergence\n"
      "from the dense ones) for each byte; masks that take out more and more\n"
      "are tried on split select; the chosen one is read once on split test,\n"
      "beside random, uniform and whole-layer controls. Where the examples\n"
      "are too few for a claim, the result says so.\n\n"
      "A line is {\"text\": \"You have won\", \"label\": \"spam\"} to "
      "classify,\n"
      "or {\"text\": \"Dear all, ...\", \"target\": \"Meeting moved\"} to\n"
      "generate.\n\n" +
      Examples({
          {"a server to ask", "headcount serve models/mailroom --calibration"},
          {"half of the KV cache, and what it costs",
           "headcount prune --data mails.jsonl --kv-bytes 50%"},
          {"all that one point of accuracy allows; read heads.html",
           "headcount prune --rank train.jsonl --select dev.jsonl \\\n"
           "      --test test.jsonl --max-loss 1pt --weights models/mailroom"},
      }));
  return {.app = &app, .run = [options](Console& console) {
            return PruneModel(*options, console);
          }};
}

}  // namespace headcount
