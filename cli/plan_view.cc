#include "cli/plan_view.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/human.h"
#include "cli/roofline.h"
#include "cli/table.h"
#include "heads/capacity_plan.h"

namespace headcount {
namespace {

std::string Sequences(int64_t count) {
  return count == kNoLimit ? "no limit" : FormatCount(count);
}

// 16.3 G: thousands, for numbers of operations.
std::string Operations(double count) {
  constexpr const char* kUnits[] = {"", " k", " M", " G", " T", " P", " E"};
  size_t unit = 0;
  while (count >= 1000 && unit + 1 < std::size(kUnits)) {
    count /= 1000;
    ++unit;
  }
  return absl::StrFormat("%.*f%s", count < 100 && unit > 0 ? 1 : 0, count,
                         kUnits[unit]);
}

std::string Seconds(double seconds) {
  if (seconds <= 0) return "unknown";
  return seconds < 1 ? absl::StrFormat("%.2f ms", seconds * 1000)
                     : absl::StrFormat("%.2f s", seconds);
}

std::string Change(double from, double to) {
  if (from <= 0 || from == to) return "";
  if (to > 1.5 * from) return absl::StrFormat("x %.2f", to / from);
  return absl::StrFormat("%+.1f %%", 100 * (to / from - 1));
}

double FlopsOfToken(const v1::CapacityPlan& plan) {
  return static_cast<double>(plan.projection_flops() + plan.attention_flops() +
                             plan.mlp_flops() + plan.output_flops());
}

struct Line {
  std::string name;
  std::function<double(const v1::CapacityPlan&, const Roofline&)> value;
  std::function<std::string(double)> format;
};

std::string Bytes(double bytes) {
  return FormatByteSize(static_cast<int64_t>(bytes));
}
std::string Count(double count) {
  return Sequences(count >= 9.2e18 ? kNoLimit : static_cast<int64_t>(count));
}
std::string Rate(double rate) { return rate <= 0 ? "unknown" : Count(rate); }

using Plan = v1::CapacityPlan;
using Roof = Roofline;

double Number(int64_t count) { return static_cast<double>(count); }

std::vector<Line> WeightLines() {
  return {
      {"query heads",
       [](const Plan& p, const Roof&) { return Number(p.query_heads()); },
       Count},
      {"KV heads",
       [](const Plan& p, const Roof&) { return Number(p.kv_heads()); }, Count},
      {"parameters",
       [](const Plan& p, const Roof&) { return Number(p.parameters()); },
       Count},
      {"weights",
       [](const Plan& p, const Roof&) { return Number(p.weight_bytes()); },
       Bytes},
  };
}

std::vector<Line> CacheLines(const std::string& context) {
  return {
      {"KV per token",
       [](const Plan& p, const Roof&) {
         return Number(p.kv_bytes_per_token());
       },
       Bytes},
      {"KV pool",
       [](const Plan& p, const Roof&) { return Number(p.kv_pool_bytes()); },
       Bytes},
      {absl::StrCat("KV of ", context, " tokens"),
       [](const Plan& p, const Roof&) { return Number(p.sequence_bytes()); },
       Bytes},
      {"sequences let in",
       [](const Plan& p, const Roof&) {
         return Number(p.sequences_admitted());
       },
       Count},
      {"sequences that fit",
       [](const Plan& p, const Roof&) { return Number(p.sequences_held()); },
       Count},
  };
}

std::vector<Line> SpeedLines(const std::string& context) {
  return {
      {"FLOP per token",
       [](const Plan& p, const Roof&) { return FlopsOfToken(p); }, Operations},
      {"bytes per step",
       [](const Plan&, const Roof& r) { return r.step_bytes; }, Bytes},
      {"step, at least",
       [](const Plan&, const Roof& r) {
         return std::max(r.read_seconds, r.compute_seconds);
       },
       Seconds},
      {"tokens per second, at most",
       [](const Plan&, const Roof& r) { return r.tokens_per_second; }, Rate},
      {absl::StrCat("prompt of ", context, ", at least"),
       [](const Plan&, const Roof& r) { return r.prefill_seconds; }, Seconds},
  };
}

std::vector<Line> Lines(const Plan& plan) {
  const std::string context = FormatCount(plan.context_tokens());
  std::vector<Line> lines = WeightLines();
  const auto append = [&](std::vector<Line> more) {
    for (Line& line : more) lines.push_back(std::move(line));
  };
  if (!IsEncoder(plan)) append(CacheLines(context));
  append(SpeedLines(context));
  return lines;
}

// With line feeds for spaces where a line would be longer than 80 columns.
std::string Wrapped(const std::string& text) {
  constexpr size_t kColumns = 80;
  std::string lines;
  size_t column = 0;
  for (const absl::string_view word : absl::StrSplit(text, ' ')) {
    if (column > 0 && column + 1 + word.size() > kColumns) {
      lines += '\n';
      column = 0;
    }
    absl::StrAppend(&lines, column > 0 ? " " : "", word);
    column += (column > 0 ? 1 : 0) + word.size();
  }
  return lines + "\n";
}

std::string Losses(const Plan& plan) {
  if (plan.groups().empty()) return "";
  std::string text = absl::StrCat(
      "The pool has ", FormatCount(plan.slabs()), " slabs of ",
      FormatByteSize(plan.slab_bytes()),
      ". Their ends, where no block fits, are ",
      FormatByteSize(plan.slab_end_bytes()),
      "; the watermark, which admission leaves free for sequences to grow "
      "into, is ",
      FormatByteSize(plan.watermark_bytes()),
      ". Divided without either, it would be ",
      Sequences(plan.sequences_undivided()), " sequences.");
  if (plan.sequences_scheduled() < plan.sequences_admitted()) {
    absl::StrAppend(&text, " The scheduler runs ",
                    FormatCount(plan.sequences_scheduled()), " at once.");
  }
  for (const v1::KvGroupPlan& group : plan.groups()) {
    if (group.blocks_per_slab() == 0) {
      absl::StrAppend(&text, " A block has ",
                      FormatByteSize(group.block_bytes()),
                      ", more than a slab: the model does not load. Make the "
                      "pool larger.");
    }
    if (group.window() == 0) continue;
    absl::StrAppend(
        &text, " ", FormatCount(group.kv_heads()), " KV heads keep the ",
        group.sink() == 0
            ? ""
            : absl::StrCat("first ", FormatCount(group.sink()), " and the "),
        "last ", FormatCount(group.window()), " tokens.");
  }
  return Wrapped(text);
}

std::string VerdictOn(const Plan& plan, const Roofline& roof,
                      const Device& device) {
  if (roof.binds.empty()) {
    return Wrapped(absl::StrCat("What binds on ", device.name,
                                " is not known: give --bandwidth and "
                                "--tflops, or --gpu."));
  }
  std::string text = absl::StrCat("What binds on ", device.name, ": ",
                                  roof.binds, "; ", roof.why, ".");
  if (roof.sequences > 0 && roof.tokens_per_second > 0 && !IsEncoder(plan)) {
    absl::StrAppend(
        &text, " Arithmetic takes longer than reading ",
        roof.compute_bound_from == 0
            ? "at no number of sequences of this length"
            : absl::StrCat("from ", FormatCount(roof.compute_bound_from),
                           " sequences of this length on"),
        ".");
  }
  return Wrapped(text);
}

}  // namespace

std::string RenderPlan(const Plan& all_heads, const Plan& plan,
                       const Device& device) {
  const Roofline all_roof = RooflineOf(all_heads, device);
  const Roofline roof = RooflineOf(plan, device);
  const bool same = all_heads.SerializeAsString() == plan.SerializeAsString();
  std::vector<Table::Column> columns = {{plan.architecture()}};
  if (!same) columns.push_back({"ALL HEADS, f16", Align::kRight});
  columns.push_back(
      {same ? "ALL HEADS, f16"
            : absl::StrCat("PLAN", plan.kv_dtype().empty() ? "" : ", ",
                           plan.kv_dtype()),
       Align::kRight});
  if (!same) columns.push_back({"CHANGE", Align::kRight});
  Table table(std::move(columns));
  for (const Line& line : Lines(plan)) {
    const double from = line.value(all_heads, all_roof);
    const double to = line.value(plan, roof);
    std::vector<std::string> cells = {line.name};
    if (!same) cells.push_back(line.format(from));
    cells.push_back(line.format(to));
    if (!same) cells.push_back(Change(from, to));
    table.AddRow(std::move(cells));
  }
  return absl::StrCat(table.Render(), "\n", Losses(plan),
                      VerdictOn(plan, roof, device));
}

std::string RenderExchange(const ModelShape& shape, const Plan& plan,
                           int gpus) {
  constexpr int64_t kElementBytes = 2;
  const int64_t sums = 1 + shape.layers * (shape.shared_norm ? 1 : 2);
  const int64_t bytes = kElementBytes * shape.hidden *
                        std::max<int64_t>(RooflineOf(plan, {}).sequences, 1);
  return Wrapped(absl::StrCat(
      "Not in these times: the ", gpus, " GPUs add up their parts ",
      FormatCount(sums), " times a step, ", FormatByteSize(bytes),
      " each time (ncclAllReduce), and gather the logits (ncclAllGather): "
      "docs/scaling.md."));
}

Json PlanJson(const Plan& plan, const Device& device) {
  const Roofline roof = RooflineOf(plan, device);
  Json groups = Json::array();
  for (const v1::KvGroupPlan& group : plan.groups()) {
    groups.push_back({{"window", group.window()},
                      {"sink", group.sink()},
                      {"kv_heads", group.kv_heads()},
                      {"block_bytes", group.block_bytes()},
                      {"blocks_per_slab", group.blocks_per_slab()},
                      {"sequence_blocks", group.sequence_blocks()},
                      {"admission_blocks", group.admission_blocks()}});
  }
  return {{"architecture", plan.architecture()},
          {"context_tokens", plan.context_tokens()},
          {"query_heads", plan.query_heads()},
          {"kv_heads", plan.kv_heads()},
          {"kv_dtype", plan.kv_dtype()},
          {"parameters", plan.parameters()},
          {"weight_bytes", plan.weight_bytes()},
          {"kv_bytes_per_token", plan.kv_bytes_per_token()},
          {"kv_pool_bytes", plan.kv_pool_bytes()},
          {"slab_bytes", plan.slab_bytes()},
          {"slabs", plan.slabs()},
          {"slab_end_bytes", plan.slab_end_bytes()},
          {"watermark_bytes", plan.watermark_bytes()},
          {"sequence_bytes", plan.sequence_bytes()},
          {"sequences_admitted", plan.sequences_admitted()},
          {"sequences_held", plan.sequences_held()},
          {"sequences_undivided", plan.sequences_undivided()},
          {"sequences_scheduled", plan.sequences_scheduled()},
          {"projection_flops", plan.projection_flops()},
          {"attention_flops", plan.attention_flops()},
          {"mlp_flops", plan.mlp_flops()},
          {"output_flops", plan.output_flops()},
          {"prefill_flops", plan.prefill_flops()},
          {"attended_bytes", plan.attended_bytes()},
          {"groups", groups},
          {"at_best",
           {{"device", device.name},
            {"sequences", roof.sequences},
            {"step_bytes", roof.step_bytes},
            {"step_flops", roof.step_flops},
            {"read_seconds", roof.read_seconds},
            {"compute_seconds", roof.compute_seconds},
            {"tokens_per_second", roof.tokens_per_second},
            {"prefill_seconds", roof.prefill_seconds},
            {"compute_bound_from", roof.compute_bound_from},
            {"binds", roof.binds}}}};
}

std::string RenderSweep(const std::vector<SweepLine>& lines) {
  std::vector<Table::Column> columns = {{"KV GROUPS KEPT", Align::kRight}};
  for (const SweepLine& line : lines) {
    columns.push_back({std::string(KvDtypeName(line.dtype)), Align::kRight});
  }
  Table table(std::move(columns));
  for (size_t i = 0; i < lines.front().points.size(); ++i) {
    std::vector<std::string> cells = {
        absl::StrFormat("%.0f %%", 100 * lines.front().points[i].kept)};
    for (const SweepLine& line : lines) {
      cells.push_back(Sequences(line.points[i].plan.sequences_admitted()));
    }
    table.AddRow(std::move(cells));
  }
  return absl::StrCat(
      "Sequences of ",
      FormatCount(lines.front().points.front().plan.context_tokens()),
      " tokens that are let in at once, by KV dtype. Groups go evenly from "
      "all\nlayers; which ones a task can spare is not considered.\n\n",
      table.Render());
}

Json SweepJson(const std::vector<SweepLine>& lines, const Device& device) {
  Json points = Json::array();
  for (const SweepLine& line : lines) {
    for (const SweepPoint& point : line.points) {
      Json entry = PlanJson(point.plan, device);
      entry["kept"] = point.kept;
      points.push_back(std::move(entry));
    }
  }
  return points;
}

}  // namespace headcount
