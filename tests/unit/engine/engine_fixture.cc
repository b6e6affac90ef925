#include "tests/unit/engine/engine_fixture.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "backend/cpu/cpu_backend.h"
#include "base/check.h"
#include "text/tokenizer.h"

namespace headcount {

std::vector<int32_t> Heard::ids() const {
  std::vector<int32_t> out;
  for (const GeneratedToken& token : tokens) out.push_back(token.id);
  return out;
}

bool SameAnswer(const Heard& a, const Heard& b) {
  if (a.ids() != b.ids() || a.text != b.text) return false;
  for (size_t i = 0; i < a.tokens.size(); ++i) {
    const std::vector<TopLogprob>& left = a.tokens[i].top;
    const std::vector<TopLogprob>& right = b.tokens[i].top;
    if (a.tokens[i].logprob != b.tokens[i].logprob) return false;
    if (left.size() != right.size()) return false;
    for (size_t k = 0; k < left.size(); ++k) {
      if (left[k].token != right[k].token) return false;
      if (left[k].logprob != right[k].logprob) return false;
    }
  }
  if (a.scores.size() != b.scores.size()) return false;
  for (size_t i = 0; i < a.scores.size(); ++i) {
    if (a.scores[i].logprobs != b.scores[i].logprobs) return false;
  }
  return a.ending().cause == b.ending().cause &&
         a.ending().stop_id == b.ending().stop_id &&
         a.ending().stop_string == b.ending().stop_string &&
         a.ending().choice == b.ending().choice;
}

void Recorder::OnScores(Scores scores) {
  MutexLock lock(&mutex_);
  heard_.late |= !heard_.endings.empty() || !heard_.tokens.empty();
  heard_.scores.push_back(std::move(scores));
}

void Recorder::OnOutput(Output output) {
  MutexLock lock(&mutex_);
  heard_.late |= !heard_.endings.empty();
  for (GeneratedToken& token : output.tokens) {
    heard_.tokens.push_back(std::move(token));
  }
  heard_.text += output.text;
  news_.NotifyAll();
}

void Recorder::OnEnd(Ending ending) {
  MutexLock lock(&mutex_);
  heard_.endings.push_back(std::move(ending));
  news_.NotifyAll();
}

void Recorder::AwaitTokens(size_t count) const {
  MutexLock lock(&mutex_);
  while (heard_.tokens.size() < count && heard_.endings.empty()) {
    news_.Wait(&mutex_);
  }
}

void Recorder::AwaitEnd() const {
  MutexLock lock(&mutex_);
  while (heard_.endings.empty()) news_.Wait(&mutex_);
}

Heard Recorder::heard() const {
  MutexLock lock(&mutex_);
  return heard_;
}

bool Recorder::ended() const {
  MutexLock lock(&mutex_);
  return !heard_.endings.empty();
}

std::string MailroomPath() {
  return std::string(HEADCOUNT_SOURCE_DIR) + "/models/mailroom";
}

std::string TinyPath(const std::string& name) {
  return std::string(HEADCOUNT_SOURCE_DIR) + "/tests/data/golden/tiny/" + name;
}

EngineModel LoadModel(const ModelSpec& spec, const EngineOptions& options,
                      Backend* backend) {
  static const std::shared_ptr<const Tokenizer> kTokenizer =
      std::make_shared<const Tokenizer>(
          Tokenizer::Load(MailroomPath()).value());
  const ModelOptions model_options{.path = spec.path,
                                   .mask = spec.mask,
                                   .kv_dtype = KvDtype::kF32,
                                   .max_step_tokens = options.step_tokens,
                                   .max_logits_rows = 64};
  EngineModel out;
  out.name = spec.path;
  out.model = Model::Load(model_options, backend).value();
  out.tokenizer = kTokenizer;
  out.max_context =
      spec.max_context > 0 ? spec.max_context : out.model->config().max_context;
  out.max_concurrent = spec.max_concurrent;
  out.max_logits_rows = model_options.max_logits_rows;
  out.quota = spec.quota;
  return out;
}

EngineModel LoadVariant(const EngineModel& base, const ModelSpec& spec) {
  EngineModel out = base;
  out.name = spec.path;
  out.variant =
      base.model->MakeVariant({.mask = spec.mask, .kv_dtype = KvDtype::kF32})
          .value();
  if (spec.max_context > 0) out.max_context = spec.max_context;
  out.max_concurrent = spec.max_concurrent;
  out.quota = spec.quota;
  return out;
}

std::unique_ptr<Engine> MakeEngine(const std::vector<ModelSpec>& models,
                                   const EngineOptions& options,
                                   const Clock* clock) {
  std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 2});
  std::vector<EngineModel> made;
  for (const ModelSpec& spec : models) {
    made.push_back(LoadModel(spec, options, backend.get()));
  }
  return Engine::Create(options, std::move(backend), std::move(made), clock)
      .value();
}

std::unique_ptr<Engine> MakeSmallStepMailroom(const Clock* clock,
                                              int64_t slabs) {
  return MakeEngine(
      {{.path = MailroomPath()}},
      {.kv_pool_bytes = slabs * kSlab, .step_tokens = 16, .prefix_cache = true},
      clock);
}

std::vector<int32_t> MailTokens(size_t start, size_t count) {
  static const std::vector<int32_t> kMail = [] {
    absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(MailroomPath());
    CHECK(tokenizer.ok()) << tokenizer.status();
    return tokenizer->Encode(
        "Dear all,\n\nthe meeting about the new release moves to Thursday at "
        "ten o'clock. Please send me what you want to talk about before "
        "Wednesday evening, and tell me if you cannot come.\n\nOn another "
        "matter: several of you got a mail that offers a free holiday for "
        "your bank details. Do not answer it. We have told the people who "
        "run the list, and they have closed the account that sent it.\n");
  }();
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) {
    tokens.push_back(kMail[(start + i) % kMail.size()]);
  }
  return tokens;
}

Request MakeRequest(std::vector<int32_t> prompt, int32_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.max_tokens = max_tokens;
  return request;
}

Request MakeScoreRequest(std::vector<int32_t> prompt,
                         std::vector<std::vector<int32_t>> continuations) {
  Request request = MakeRequest(std::move(prompt), 0);
  request.continuations = std::move(continuations);
  return request;
}

DirectScores::DirectScores() : backend_(CreateCpuBackend({.threads = 1})) {
  ModelOptions options;
  options.path = MailroomPath();
  options.kv_dtype = KvDtype::kF32;
  model_ = Model::Load(options, backend_.get()).value();
}

DirectScores::~DirectScores() = default;

std::vector<std::vector<double>> DirectScores::Of(
    const std::vector<int32_t>& tokens) const {
  const int64_t block_bytes = model_->geometries()[0].block_bytes();
  const int64_t blocks =
      KvGeometry::BlocksFor(static_cast<int64_t>(tokens.size()));
  const std::unique_ptr<Buffer> arena =
      backend_->Allocate(blocks * block_bytes).value();
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i < blocks; ++i) offsets.push_back(i * block_bytes);
  BatchSequence sequence;
  sequence.tokens = tokens;
  sequence.blocks = {offsets};
  sequence.logits_rows = static_cast<int32_t>(tokens.size());
  Batch batch;
  batch.sequences = {sequence};
  const Logits logits = model_->Forward(batch, arena->data()).value();
  std::vector<std::vector<double>> out;
  for (int64_t row = 0; row < logits.rows; ++row) {
    const float* begin = logits.data + row * logits.vocab;
    std::vector<double> scores(begin, begin + logits.vocab);
    const double best = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (const double score : scores) sum += std::exp(score - best);
    for (double& score : scores) score -= best + std::log(sum);
    out.push_back(std::move(scores));
  }
  return out;
}

std::vector<Heard> RunAll(Engine* engine,
                          const std::vector<Request>& requests) {
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (const Request& request : requests) {
    recorders.push_back(std::make_shared<Recorder>());
    const absl::StatusOr<RequestId> id =
        engine->Submit(request, recorders.back());
    CHECK(id.ok()) << id.status();
  }
  while (engine->StepOnce()) {
  }
  std::vector<Heard> heard;
  for (const std::shared_ptr<Recorder>& recorder : recorders) {
    heard.push_back(recorder->heard());
    CHECK(heard.back().endings.size() == 1 && !heard.back().late)
        << heard.back().endings.size() << " endings";
  }
  return heard;
}

}  // namespace headcount
