#include "cli/prune.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/flags.h"
#include "cli/heads_json.h"
#include "cli/interrupt.h"
#include "cli/open_calls.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/prune_data.h"
#include "cli/prune_options.h"
#include "cli/prune_sources.h"
#include "cli/prune_task.h"
#include "cli/prune_view.h"
#include "cli/repair_file.h"
#include "cli/rpc_gate_scorer.h"
#include "cli/score_journal.h"
#include "cli/served_answers.h"
#include "cli/served_latency.h"
#include "cli/served_repair.h"
#include "cli/write_file.h"
#include "headcount/v1/model.pb.h"
#include "model/heads_file.h"
#include "prune/prune_pipeline.h"

namespace headcount {
namespace {

// A file beside the mask: "heads.json" -> "heads.html".
std::string Beside(const std::string& out, const std::string& extension) {
  return std::filesystem::path(out).replace_extension(extension).string();
}

// A mask of one model, repaired for another, is neither's.
absl::Status CheckSameHeads(const v1::Model& outside, const v1::Model& inside) {
  bool same = outside.layers_size() == inside.layers_size();
  for (int l = 0; same && l < outside.layers_size(); ++l) {
    same = std::ranges::equal(outside.layers(l).query_heads(),
                              inside.layers(l).query_heads());
  }
  if (same) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "--weights: has other heads than the served model; give --model PATH to "
      "prune what lies there");
}

// From flags to files, once.
class PruneRun {
 public:
  // All outlive it.
  PruneRun(const PruneOptions& options, OpenCalls* calls, Console& console)
      : options_(options), calls_(calls), console_(console) {}

  absl::Status Execute();

 private:
  absl::Status Prepare();
  absl::Status Search();
  absl::Status CheckInside();
  absl::Status MeasureLatency();
  absl::Status Repair();
  absl::Status Print() const;
  absl::Status WriteMask() const;
  const LocalWeights* weights() const {
    return sources_.weights ? &*sources_.weights : nullptr;
  }
  std::string Sha256() const {
    return sources_.weights ? sources_.weights->sha256 : "";
  }

  const PruneOptions& options_;
  OpenCalls* const calls_;
  Console& console_;
  PruneSources sources_;
  v1::Model model_;
  PruneData data_;
  std::vector<ReportSplit> splits_;
  PruneTask task_;
  PruneReport report_;
  std::vector<LayerRepair> repair_;  // to be written
};

absl::Status PruneRun::Prepare() {
  absl::StatusOr<PruneSources> sources = OpenPruneSources(options_);
  if (!sources.ok()) return sources.status();
  sources_ = *std::move(sources);
  absl::StatusOr<v1::Model> model =
      DescribeModel(sources_.client(), calls_, sources_.model);
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  if (absl::Status status = CheckInside(); !status.ok()) return status;
  PruneFiles files = options_.files;
  files.frame.weights = sources_.weights_path;
  absl::StatusOr<PruneData> data =
      ReadPruneData(files, {model_.labels().begin(), model_.labels().end()},
                    options_.rank_examples, options_.seed);
  if (!data.ok()) return data.status();
  data_ = *std::move(data);
  absl::StatusOr<std::vector<ReportSplit>> splits = DescribeSplits(data_);
  if (!splits.ok()) return splits.status();
  splits_ = *std::move(splits);
  absl::StatusOr<PruneTask> task = MakeTask(options_, model_, data_, weights());
  if (!task.ok()) return task.status();
  task_ = *std::move(task);
  return absl::OkStatus();
}

absl::Status PruneRun::CheckInside() {
  if (sources_.outside == nullptr || !sources_.inside) return absl::OkStatus();
  const absl::StatusOr<v1::Model> inside =
      DescribeModel(*sources_.inside->client, calls_, sources_.inside->dense);
  if (!inside.ok()) return inside.status();
  return CheckSameHeads(model_, *inside);
}

absl::Status PruneRun::Search() {
  const absl::StatusOr<std::string> run =
      RunHash(model_, task_, splits_, Sha256());
  if (!run.ok()) return run.status();
  const std::string path = options_.journal.empty()
                               ? Beside(options_.out, ".journal")
                               : options_.journal;
  const absl::StatusOr<std::unique_ptr<ScoreJournal>> journal =
      ScoreJournal::Open(path, *run);
  if (!journal.ok()) return journal.status();
  if ((*journal)->read() > 0) {
    console_.err << "Going on with " << (*journal)->read() << " scores from "
                 << path << "\n";
  }
  std::array<int64_t, kSplits> examples = {};
  for (size_t i = 0; i < splits_.size(); ++i) examples[i] = splits_[i].examples;
  const int64_t planned = PlannedForwards(task_, examples);
  Progress progress(console_, "texts under a mask", planned);
  const PruneUnits units = MakeUnits(task_.layers, task_.unit);
  RpcGateScorer scorer({.client = &sources_.client(),
                        .calls = calls_,
                        .model = model_.name(),
                        .layers = &task_.layers,
                        .units = &units,
                        .data = &data_,
                        .journal = journal->get()},
                       [&progress, planned](int64_t done) {
                         progress.Show(std::min(done, planned));
                       });
  absl::StatusOr<PruneReport> report = Prune(task_, &scorer);
  if (!report.ok()) return report.status();
  report_ = *std::move(report);
  report_.target = TargetInWords(task_.target, task_.metric, task_.unit);
  report_.splits = splits_;
  report_.forwards = scorer.forwards();
  if (data_.split_by_hash) {
    report_.notes.push_back(
        "Texts were put into splits by their SHA-256: 3 of 10 to rank, 3 to "
        "select, 4 to test.");
  }
  if (!sources_.weights) {
    report_.notes.push_back(
        "Without --weights the mask names no SHA-256 of its weights, and the "
        "most that speed can gain is not known.");
  }
  return absl::OkStatus();
}

absl::Status PruneRun::MeasureLatency() {
  const InsideServer& inside = *sources_.inside;
  return headcount::MeasureLatency(model_,
                                   {.client = inside.client.get(),
                                    .calls = calls_,
                                    .dense = inside.dense,
                                    .candidate = inside.candidate.get(),
                                    .data = &data_},
                                   options_.latency_texts, console_, &report_);
}

absl::Status PruneRun::Repair() {
  const InsideServer& inside = *sources_.inside;
  absl::StatusOr<RepairResult> result =
      RepairMask(report_, task_, options_.repairs, *sources_.weights,
                 {.client = inside.client.get(),
                  .calls = calls_,
                  .dense = inside.dense,
                  .candidate = inside.candidate.get(),
                  .data = &data_,
                  .mask = HeadsJson(report_, model_, /*sha256=*/"")},
                 console_);
  if (!result.ok()) return result.status();
  AddRepair(std::move(result->report), &report_);
  repair_ = std::move(result->accepted);
  return absl::OkStatus();
}

absl::Status PruneRun::Print() const {
  const std::string page =
      options_.report.empty() ? Beside(options_.out, ".html") : options_.report;
  absl::Status status = WriteFile(page, RenderReport(report_));
  if (!status.ok()) return status;
  if (options_.output == OutputFormat::kJson) {
    PrintJson(console_, PruneJson(report_));
  } else {
    console_.out << RenderPrune(report_);
  }
  console_.err << "Report: " << page << "\n";
  return absl::OkStatus();
}

absl::Status PruneRun::WriteMask() const {
  if (report_.test.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("no mask was written. The smallest of the path: ",
                     Claim(report_.path.front().quality, report_.margin)));
  }
  Json mask = HeadsJson(report_, model_, Sha256());
  if (!repair_.empty()) {
    const std::filesystem::path tensors =
        Beside(options_.out, ".repair.safetensors");
    absl::Status status = WriteRepair(tensors.string(), repair_);
    if (!status.ok()) return status;
    AddRepair(tensors.filename().string(), &mask);
    console_.err << "Repair: " << tensors.string() << "\n";
  }
  absl::Status status = WriteFile(options_.out, mask.dump(1) + "\n");
  if (!status.ok()) return status;
  if (sources_.weights) {
    const absl::StatusOr<HeadsFile> read =
        ReadHeadsFile(options_.out, sources_.weights->config);
    if (!read.ok()) return read.status();
  }
  console_.err << "Mask: " << options_.out
               << " (serve it with heads: {mask_file: ...} in the model's "
                  "headcount.yaml)\n";
  return absl::OkStatus();
}

absl::Status PruneRun::Execute() {
  absl::Status status = Prepare();
  if (status.ok()) status = Search();
  if (status.ok() && sources_.inside && options_.latency_texts > 0) {
    status = MeasureLatency();
  }
  if (status.ok() && options_.repair && !report_.test.empty()) {
    status = Repair();
  }
  if (status.ok()) status = Print();
  if (status.ok()) status = WriteMask();
  if (status.ok() && options_.journal.empty()) {
    std::error_code ignored;
    std::filesystem::remove(Beside(options_.out, ".journal"), ignored);
  }
  return status;
}

absl::Status PruneModel(const PruneOptions& options, Console& console) {
  OpenCalls calls;
  const Interrupt interrupt([&calls] { calls.CancelAll(); });
  return PruneRun(options, &calls, console).Execute();
}

}  // namespace

Command PruneCommand(CLI::App& root) {
  auto options = std::make_shared<PruneOptions>();
  CLI::App& app =
      AddCommand(root, "prune",
                 "find the heads that a task can spare; writes a mask file");
  AddPruneFlags(app, options.get());
  app.footer(
      "Asks a server that runs with --calibration, or, if --model is a path,\n"
      "one that is started inside for as long. Every unit is left out\n"
      "alone, and ranked by what that changes in the answers (KL divergence\n"
      "from the dense ones) for each byte; masks that take out more and more\n"
      "are tried on split select; the chosen one is read once on split test,\n"
      "beside random, uniform and whole-layer controls. Where the examples\n"
      "are too few for a claim, the result says so.\n\n"
      "With --repair the output projections of pruned layers are refit on "
      "split\n"
      "rank for the heads that stay. From the first layer to the last, each "
      "is\n"
      "tried on split select, as served, and kept if the KL divergence from\n"
      "the dense answers falls (with targets: if they get likelier). What is\n"
      "kept is written beside the mask if it is better on all of select.\n\n"
      "A run that was stopped goes on with the scores of its journal; a "
      "repair\n"
      "starts again.\n\n"
      "A line is {\"text\": \"You have won\", \"label\": \"spam\"} to "
      "classify,\n"
      "or {\"text\": \"Dear all, ...\", \"target\": \"Meeting moved\"} to\n"
      "generate.\n\n" +
      Examples({
          {"without a server",
           "headcount prune --model ./models/mailroom --data mails.jsonl \\\n"
           "      --kv-bytes 25% --repair"},
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
