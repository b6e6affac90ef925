#include "cli/rpc_gate_scorer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "cli/calibration_example.h"
#include "format/sha256.h"

namespace headcount {
namespace {

// Of a request: servers take 4 MiB.
constexpr size_t kMaxGateBytes = size_t{1} << 20;
constexpr size_t kMaxTextBytes = size_t{1} << 20;
constexpr size_t kMaxSettings = 1024;
constexpr size_t kMaxExamples = 1024;
// A call shall be long enough to fill batches, and far from its deadline.
constexpr absl::Duration kQuickCall = absl::Seconds(5);
constexpr int64_t kMaxBudget = 65'536;

Outcome OutcomeOf(const v1::GateScore& score, const LabelledText& text,
                  int places) {
  return {.kl = score.kl(),
          .logprob = score.expected_logprob() / std::max(1, places),
          .right = !score.label().empty() && score.label() == text.label,
          .label = score.label()};
}

}  // namespace

PrunableModel PrunableModelOf(const v1::Model& model) {
  PrunableModel layers;
  for (const v1::LayerHeads& described : model.layers()) {
    PrunableLayer& layer = layers.emplace_back();
    layer.query_heads = described.query_heads_unpruned();
    layer.kv_heads = described.kv_heads_unpruned();
    for (const v1::KvHead& head : described.kv_heads()) {
      layer.groups.push_back({.kv_head = head.index(),
                              .query_heads = {head.query_heads().begin(),
                                              head.query_heads().end()},
                              .bytes_per_token = head.bytes_per_token()});
    }
  }
  return layers;
}

v1::HeadGates GatesOf(const PrunableModel& model,
                      const std::vector<LayerDrop>& drops) {
  CHECK(drops.size() == model.size());
  v1::HeadGates gates;
  for (size_t l = 0; l < model.size(); ++l) {
    v1::LayerGates* layer = gates.add_layers();
    if (drops[l].query_heads.empty()) continue;  // all 1
    layer->mutable_query_heads()->Resize(model[l].query_heads, 1.0f);
    for (const int head : drops[l].query_heads) {
      layer->set_query_heads(head, 0.0f);
    }
  }
  return gates;
}

RpcGateScorer::RpcGateScorer(Source source,
                             std::function<void(int64_t)> on_progress)
    : source_(std::move(source)),
      on_progress_(std::move(on_progress)),
      stub_(v1::CalibrationService::NewStub(source_.client->channel())) {}

absl::StatusOr<std::vector<RpcGateScorer::Question>>
RpcGateScorer::MakeQuestions(Split split,
                             const std::vector<UnitSet>& settings) const {
  std::vector<Question> questions;
  std::string spelled = SplitName(split);
  size_t bytes = 0;
  const auto close = [&]() -> absl::Status {
    const absl::StatusOr<std::string> hash = Sha256Hex(spelled);
    if (!hash.ok()) return hash.status();
    questions.back().hash = hash->substr(0, 16);
    spelled = SplitName(split);
    bytes = 0;
    return absl::OkStatus();
  };
  for (const UnitSet& gone : settings) {
    v1::HeadGates gates = GatesOf(
        *source_.layers, DropsOf(*source_.layers, *source_.units, gone));
    const size_t size = gates.ByteSizeLong();
    if (questions.empty() || questions.back().gates.size() == kMaxSettings ||
        bytes + size > kMaxGateBytes) {
      if (!questions.empty()) {
        if (absl::Status status = close(); !status.ok()) return status;
      }
      questions.push_back({.split = split, .gates = {}, .hash = ""});
    }
    bytes += size;
    spelled += '\n';
    for (const bool out : gone) spelled += out ? '1' : '0';
    questions.back().gates.push_back(std::move(gates));
  }
  if (!questions.empty()) {
    if (absl::Status status = close(); !status.ok()) return status;
  }
  return questions;
}

void RpcGateScorer::Done(const Question& question) {
  forwards_ += static_cast<int64_t>(question.gates.size());
  on_progress_(forwards_);
}

size_t RpcGateScorer::BatchEnd(const Question& question,
                               const std::vector<int64_t>& examples,
                               size_t begin) const {
  const std::vector<LabelledText>& texts = source_.data->of(question.split);
  const auto settings = static_cast<int64_t>(question.gates.size());
  const auto most = static_cast<size_t>(
      std::clamp<int64_t>(budget_ / settings, 1, kMaxExamples));
  size_t bytes = 0;
  size_t end = begin;
  for (; end < examples.size() && end - begin < most; ++end) {
    const LabelledText& text = texts[static_cast<size_t>(examples[end])];
    bytes += text.text.size() + text.target.size();
    if (end > begin && bytes > kMaxTextBytes) break;
  }
  return end;
}

absl::Status RpcGateScorer::Keep(const Question& question, int64_t example,
                                 const v1::ScoreGatesResponse& response) {
  if (static_cast<size_t>(response.scores_size()) != question.gates.size()) {
    return absl::InternalError(
        absl::StrCat("the server scored ", response.scores_size(), " of ",
                     question.gates.size(), " settings"));
  }
  const LabelledText& text =
      source_.data->of(question.split)[static_cast<size_t>(example)];
  ExampleScores scores;
  scores.dense = OutcomeOf(response.dense(), text, response.places());
  for (const v1::GateScore& score : response.scores()) {
    scores.settings.push_back(OutcomeOf(score, text, response.places()));
  }
  return source_.journal->Add(question.hash, example, scores);
}

absl::Status RpcGateScorer::Ask(const Question& question,
                                const std::vector<int64_t>& examples) {
  v1::ScoreGatesRequest request;
  request.set_model(source_.model);
  for (const int64_t example : examples) {
    *request.add_examples() = ExampleOf(
        source_.data->of(question.split)[static_cast<size_t>(example)],
        source_.data->metric);
  }
  request.mutable_gates()->Add(question.gates.begin(), question.gates.end());
  OpenCalls::Call call(source_.calls, *source_.client);
  const auto reader = stub_->ScoreGates(call.context(), request);
  v1::ScoreGatesResponse response;
  size_t answers = 0;
  while (reader->Read(&response)) {
    if (answers == examples.size() ||
        response.example() != static_cast<int32_t>(answers)) {
      return absl::InternalError("the server answers out of order");
    }
    if (absl::Status status = Keep(question, examples[answers], response);
        !status.ok()) {
      return status;
    }
    ++answers;
    Done(question);
  }
  absl::Status status = source_.client->Check(reader->Finish());
  if (absl::IsUnimplemented(status)) {
    return absl::UnimplementedError(absl::StrCat(
        "the server at ", source_.client->address(),
        " does not calibrate: start it with 'headcount serve --calibration'"));
  }
  if (!status.ok()) return status;
  if (answers == examples.size()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "the server answered ", answers, " of ", examples.size(), " examples"));
}

absl::Status RpcGateScorer::Answer(const Question& question) {
  std::vector<int64_t> unknown;
  const auto count =
      static_cast<int64_t>(source_.data->of(question.split).size());
  for (int64_t example = 0; example < count; ++example) {
    if (source_.journal->Find(question.hash, example) == nullptr) {
      unknown.push_back(example);
    } else {
      Done(question);
    }
  }
  for (size_t begin = 0; begin < unknown.size();) {
    const size_t end = BatchEnd(question, unknown, begin);
    const absl::Time start = absl::Now();
    const auto at = [&unknown](size_t i) {
      return unknown.begin() + static_cast<std::ptrdiff_t>(i);
    };
    if (absl::Status status = Ask(question, {at(begin), at(end)});
        !status.ok()) {
      return status;
    }
    const auto asked =
        static_cast<int64_t>((end - begin) * question.gates.size());
    if (absl::Now() - start < kQuickCall) {
      budget_ = std::max(budget_, std::min(2 * asked, kMaxBudget));
    }
    begin = end;
  }
  return absl::OkStatus();
}

absl::StatusOr<ScoreTable> RpcGateScorer::Score(
    Split split, const std::vector<UnitSet>& settings) {
  const absl::StatusOr<std::vector<Question>> questions =
      MakeQuestions(split, settings);
  if (!questions.ok()) return questions.status();
  const auto examples = source_.data->of(split).size();
  ScoreTable table;
  for (const Question& question : *questions) {
    if (absl::Status status = Answer(question); !status.ok()) return status;
    const size_t first = table.settings.size();
    table.dense.resize(examples);
    table.settings.resize(first + question.gates.size(),
                          std::vector<Outcome>(examples));
    for (size_t e = 0; e < examples; ++e) {
      const ExampleScores* scores =
          source_.journal->Find(question.hash, static_cast<int64_t>(e));
      CHECK(scores != nullptr);
      // A journal is a file: its lines may be shorter than what was asked.
      if (scores->settings.size() != question.gates.size()) {
        return absl::DataLossError(
            "the journal is damaged; delete it to begin again");
      }
      table.dense[e] = scores->dense;
      for (size_t s = 0; s < scores->settings.size(); ++s) {
        table.settings[first + s][e] = scores->settings[s];
      }
    }
  }
  return table;
}

}  // namespace headcount
