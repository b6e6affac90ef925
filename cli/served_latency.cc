#include "cli/served_latency.h"

#include <algorithm>
#include <vector>

#include "cli/heads_json.h"
#include "cli/progress.h"
#include "cli/served_answers.h"
#include "prune/latency.h"

namespace headcount {
namespace {

// The first answers of a model that was just loaded are not like the others.
constexpr int64_t kWarmUp = 2;

}  // namespace

absl::Status MeasureLatency(const v1::Model& model, const LatencySource& source,
                            int64_t texts, Console& console,
                            PruneReport* report) {
  std::vector<LabelledText> asked = source.data->of(Split::kSelect);
  asked.resize(std::min(asked.size(), static_cast<size_t>(texts)));
  const auto count = static_cast<int64_t>(asked.size());
  Progress progress(
      console, "answers to time",
      2 * static_cast<int64_t>(report->path.size()) * (count + kWarmUp));
  int64_t done = 0;
  for (ReportRow& row : report->path) {
    absl::Status status = source.candidate->Serve(
        MaskJson(*report, model, row.gone, /*sha256=*/""), /*repair=*/{},
        *source.client, source.calls);
    if (!status.ok()) return status;
    std::vector<LabelledText> warm_up(asked.begin(),
                                      asked.begin() + std::min(kWarmUp, count));
    const auto show = [&](int64_t answered) {
      progress.Show(done + 2 * answered);
    };
    absl::StatusOr<ServedPair> answers = AskBoth(
        *source.client, source.calls, source.dense,
        source.candidate->spec().name(), warm_up, source.data->metric, show);
    if (!answers.ok()) return answers.status();
    done += 2 * kWarmUp;
    answers = AskBoth(*source.client, source.calls, source.dense,
                      source.candidate->spec().name(), asked,
                      source.data->metric, show);
    if (!answers.ok()) return answers.status();
    done += 2 * count;
    row.latency = CompareLatency(answers->dense.milliseconds,
                                 answers->pruned.milliseconds, report->seed);
  }
  if (report->chosen >= 0 && !report->test.empty()) {
    report->test.front().latency =
        report->path[static_cast<size_t>(report->chosen)].latency;
  }
  return absl::OkStatus();
}

}  // namespace headcount
