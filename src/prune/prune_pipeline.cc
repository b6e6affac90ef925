#include "prune/prune_pipeline.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "prune/controls.h"
#include "prune/head_search.h"

namespace headcount {
namespace {

constexpr double kMostGone = 0.9;  // where the path ends if nothing stops it
constexpr int kRandomControls = 3;
// Masks that are tried on the select split at once: each time, the dense
// answers are computed, too, and what is behind the first that does not hold in
// vain.
constexpr size_t kTogether = 3;

// At most `keep` stays, whatever units cost; without `keep`, all may go.
double CostToGo(const PruneTarget& target, const PruneUnits& units) {
  const auto total = static_cast<double>(units.total_cost);
  return target.keep ? std::ceil((1 - *target.keep) * total - 1e-6) : total;
}

// Shares of the cost that may be gone at each point of the path.
std::vector<double> PathShares(const PruneTarget& target,
                               const PruneUnits& units) {
  if (target.keep == 1.0) return {};
  double end = kMostGone;
  double unit = 0;
  if (target.keep) {
    // The last step has room for a whole unit more, and takes it only if
    // CostToGo was not reached without.
    const auto total = static_cast<double>(units.total_cost);
    int64_t largest = 0;
    for (const PruneUnit& each : units.units) {
      largest = std::max(largest, each.cost);
    }
    unit = static_cast<double>(largest) / total;
    end = (CostToGo(target, units) + static_cast<double>(largest) - 1) / total;
  }
  std::vector<double> shares;
  for (int i = 1; i * target.step + unit < end - 1e-9; ++i) {
    shares.push_back(i * target.step);
  }
  shares.push_back(end);
  return shares;
}

// One run: what the steps share.
class Run {
 public:
  Run(const PruneTask& task, GateScorer* scorer)
      : task_(task),
        scorer_(scorer),
        units_(MakeUnits(task.layers, task.unit)) {}

  absl::StatusOr<PruneReport> Execute();

 private:
  ReportRow MakeRow(const std::string& name, const UnitSet& gone) const;
  absl::Status Evaluate(Split split, std::vector<ReportRow>* rows) const;
  absl::Status WalkPath(HeadSearch* search);
  bool AddToPath(std::vector<ReportRow> rows);
  absl::Status Test(const HeadSearch& search);
  void Choose();
  double SpeedupCeiling(const std::vector<LayerDrop>& drops) const;

  const PruneTask& task_;
  GateScorer* const scorer_;
  const PruneUnits units_;
  PruneReport report_;
};

double Run::SpeedupCeiling(const std::vector<LayerDrop>& drops) const {
  if (!task_.widths) return 0;
  const std::vector<LayerDrop> none =
      DropsOf(task_.layers, units_, UnitSet(units_.units.size(), false));
  const auto flops = [&](const std::vector<LayerDrop>& dropped) {
    return static_cast<double>(FlopsPerToken(task_.layers, *task_.widths,
                                             dropped, task_.ceiling_tokens)
                                   .total());
  };
  return flops(none) / flops(drops);
}

ReportRow Run::MakeRow(const std::string& name, const UnitSet& gone) const {
  const std::vector<LayerDrop> drops = DropsOf(task_.layers, units_, gone);
  return {.name = name,
          .gone = gone,
          .kv_bytes = KvBytesPerToken(task_.layers, drops),
          .query_heads = QueryHeads(task_.layers, drops),
          .speedup_ceiling = SpeedupCeiling(drops)};
}

absl::Status Run::Evaluate(Split split, std::vector<ReportRow>* rows) const {
  std::vector<UnitSet> settings;
  for (const ReportRow& row : *rows) settings.push_back(row.gone);
  absl::StatusOr<ScoreTable> table = scorer_->Score(split, settings);
  if (!table.ok()) return table.status();
  CHECK(table->settings.size() == rows->size());
  for (size_t i = 0; i < rows->size(); ++i) {
    (*rows)[i].quality = Compare(table->dense, table->settings[i],
                                 task_.truth[static_cast<size_t>(split)],
                                 task_.metric, task_.seed);
  }
  return absl::OkStatus();
}

absl::Status Run::WalkPath(HeadSearch* search) {
  const std::vector<double> shares = PathShares(task_.target, units_);
  const double enough =
      CostToGo(task_.target, units_) / static_cast<double>(units_.total_cost);
  const size_t together = task_.target.keep ? shares.size() : kTogether;
  std::vector<ReportRow> rows;
  UnitSet last(units_.units.size(), false);
  for (size_t i = 0; i < shares.size(); ++i) {
    absl::StatusOr<PathPoint> point = search->Extend(shares[i], enough);
    if (!point.ok()) return point.status();
    if (point->gone != last) {
      rows.push_back(MakeRow(
          absl::StrFormat("%.0f %% gone", 100 * point->share), point->gone));
      last = point->gone;
    }
    if (rows.empty() || (rows.size() < together && i + 1 < shares.size())) {
      continue;
    }
    absl::Status status = Evaluate(Split::kSelect, &rows);
    if (!status.ok()) return status;
    if (!AddToPath(std::move(rows))) break;
    rows.clear();
  }
  return absl::OkStatus();
}

// Whether the path goes on: up to one point more than what holds, so that the
// picture shows where it ends.
bool Run::AddToPath(std::vector<ReportRow> rows) {
  const auto holds = [this](const ReportRow& row) {
    return Judge(row.quality, task_.target.max_loss) == Verdict::kHolds;
  };
  for (ReportRow& row : rows) {
    report_.path.push_back(std::move(row));
    if (task_.target.keep || report_.path.size() < 2) continue;
    if (!std::all_of(report_.path.begin(), report_.path.end() - 1, holds)) {
      return false;
    }
  }
  return true;
}

void Run::Choose() {
  if (task_.target.keep) {
    report_.chosen = static_cast<int>(report_.path.size()) - 1;
  } else {
    std::vector<Comparison> path;
    for (const ReportRow& row : report_.path) path.push_back(row.quality);
    report_.chosen = ChooseOnPath(path, task_.target.max_loss);
  }
  if (report_.chosen >= 0) {
    report_.gone = report_.path[static_cast<size_t>(report_.chosen)].gone;
  }
}

absl::Status Run::Test(const HeadSearch& search) {
  const UnitSet& gone = report_.gone;
  report_.test = {MakeRow("this mask", gone)};
  for (int i = 0; i < kRandomControls; ++i) {
    report_.test.push_back(MakeRow(
        absl::StrFormat("random, as many of each layer (%d)", i + 1),
        RandomLike(units_, gone, task_.seed + static_cast<uint64_t>(i))));
  }
  report_.test.push_back(
      MakeRow("as many of every layer",
              UniformPerLayer(units_, search.unit_kl(), gone)));
  const UnitSet layers = WholeLayers(units_, search.layer_kl(), gone);
  if (CostOf(units_, layers) > 0) {
    report_.test.push_back(MakeRow("whole layers", layers));
  } else {
    report_.notes.push_back(
        "No control of whole layers: one layer costs more than the mask "
        "saves.");
  }
  return Evaluate(Split::kTest, &report_.test);
}

absl::StatusOr<PruneReport> Run::Execute() {
  if (units_.units.size() < 2) {
    return absl::FailedPreconditionError(
        "the model has fewer than two units to choose from: prune single "
        "heads with --unit head");
  }
  report_.model = task_.model;
  report_.margin = task_.target.max_loss;
  report_.seed = task_.seed;
  report_.layers = task_.layers;
  report_.units = units_;
  report_.ceiling_tokens = task_.ceiling_tokens;
  report_.gone.assign(units_.units.size(), false);
  if (!units_.note.empty()) report_.notes.push_back(units_.note);
  const ReportRow dense = MakeRow("dense", report_.gone);
  report_.dense_kv_bytes = dense.kv_bytes;
  report_.dense_query_heads = dense.query_heads;

  HeadSearch search(units_, scorer_);
  if (absl::Status status = search.Rank(); !status.ok()) return status;
  report_.unit_kl = search.unit_kl();
  report_.layer_kl = search.layer_kl();
  if (absl::Status status = WalkPath(&search); !status.ok()) return status;
  if (report_.path.empty()) {
    return absl::FailedPreconditionError(
        "the target keeps everything: ask for less to keep");
  }
  report_.rescored = search.rescored();
  Choose();
  if (report_.chosen < 0) return std::move(report_);
  report_.stability =
      MaskStability(units_, search.example_kl(),
                    static_cast<double>(CostOf(units_, report_.gone)) /
                        static_cast<double>(units_.total_cost),
                    task_.seed);
  if (absl::Status status = Test(search); !status.ok()) return status;
  return std::move(report_);
}

}  // namespace

absl::StatusOr<PruneReport> Prune(const PruneTask& task, GateScorer* scorer) {
  return Run(task, scorer).Execute();
}

int64_t PlannedForwards(const PruneTask& task,
                        const std::array<int64_t, kSplits>& examples) {
  const PruneUnits units = MakeUnits(task.layers, task.unit);
  std::set<int> layers;
  for (const PruneUnit& unit : units.units) layers.insert(unit.layer);
  const auto candidates =
      static_cast<double>(units.units.size() + layers.size());
  double ranking = 1 + candidates;
  const std::vector<double> shares = PathShares(task.target, units);
  for (const double share : shares) {
    // Of the joint mask; past 40 %, of everything left, too.
    ranking += 1;
    if (share > 0.4) ranking += 1 + candidates * (1 - share + task.target.step);
  }
  return static_cast<int64_t>(ranking) * examples[0] +
         static_cast<int64_t>(shares.size()) * examples[1] +
         (kRandomControls + 3) * examples[2];
}

}  // namespace headcount
