// The models of an engine: how they come and go while others run, and what is
// taken for them.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "engine/engine_impl.h"

namespace headcount {
namespace {

// The queue's default bound in tokens, in pools.
constexpr int64_t kQueuedPools = 4;

// base: its index, or -1.
SchedulerModel ForScheduler(const EngineModel& model, int base) {
  SchedulerModel out{.groups = {},
                     .quota = model.quota,
                     .max_context = model.max_context,
                     .max_concurrent = model.max_concurrent,
                     .max_logits_rows = model.max_logits_rows,
                     .base = base,
                     .share = model.share};
  const std::vector<KvGeometry>& geometries = model.heads().geometries();
  for (size_t i = 0; i < geometries.size(); ++i) {
    out.groups.push_back({geometries[i].block_bytes(),
                          model.heads().layout().groups()[i].retention});
  }
  return out;
}

// Whether `rows`, if there are any, have a place for each token to score.
bool RowsFit(const LogprobRows* rows, const Request& request, int32_t vocab) {
  return rows == nullptr ||
         (request.continuations.size() == 1 &&
          rows->vocab == static_cast<size_t>(vocab) &&
          rows->places() == request.continuations.front().size());
}

}  // namespace

bool EngineImpl::Do(const std::function<void()>& errand) {
  if (mailbox_.Do(errand)) return true;
  errand();
  return false;
}

absl::StatusOr<int> EngineImpl::AddModel(EngineModel model) {
  auto shared = std::make_shared<const EngineModel>(std::move(model));
  absl::StatusOr<int> index = absl::InternalError("not done");
  Do([&] { index = Take(shared); });
  return index;
}

absl::StatusOr<int> EngineImpl::Take(std::shared_ptr<const EngineModel> model) {
  int base = -1;
  if (model->variant != nullptr) {
    for (size_t i = 0; i < models_.size(); ++i) {
      const EngineModel* const other = models_[i].get();
      if (other == nullptr || other->variant != nullptr) continue;
      if (other->model == model->model) base = static_cast<int>(i);
    }
    if (base < 0 || closed_.contains(base)) {
      return absl::FailedPreconditionError(
          "the model whose weights it shares is not loaded");
    }
  }
  const absl::Status room =
      model->model->ReserveSteps(model->heads(), model->max_context);
  if (!room.ok()) {
    return absl::Status(
        room.code(), absl::StrCat("scratch memory for steps: ", room.message(),
                                  "; lower --kv-pool or --step-tokens"));
  }
  absl::StatusOr<int> index = scheduler_.AddModel(ForScheduler(*model, base));
  if (!index.ok()) return index;
  const auto slot = static_cast<size_t>(*index);
  if (slot >= models_.size()) models_.resize(slot + 1);
  models_[slot] = std::move(model);
  OpenModels();
  return index;
}

// On the step thread, so that no variant can come meanwhile.
absl::Status EngineImpl::Close(int index) {
  CHECK(models_.at(static_cast<size_t>(index)) != nullptr) << index;
  const EngineModel& model = *models_[static_cast<size_t>(index)];
  std::vector<std::string> variants;
  for (const auto& other : models_) {
    if (other == nullptr || other->variant == nullptr) continue;
    if (model.variant == nullptr && other->model == model.model) {
      variants.push_back(absl::StrCat("'", other->name, "'"));
    }
  }
  if (!variants.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("it has variants: ", absl::StrJoin(variants, ", "),
                     "; unload them first"));
  }
  closed_.insert(index);
  mailbox_.CloseModel(index);
  return absl::OkStatus();
}

absl::StatusOr<int> EngineImpl::RemoveModel(int index, absl::Time deadline) {
  absl::Status closed;
  Do([&] { closed = Close(index); });
  if (!closed.ok()) return closed;
  mailbox_.AwaitIdle(index, deadline);
  // Whatever came before it was closed is in the same mail or an earlier one.
  int ended = 0;
  const bool steps = Do([&] {
    leaving_.insert(index);
    ended_leaving_ = 0;
  });
  if (!steps) {
    StepOnce();
    Deliver(&late_news_);
  }
  std::shared_ptr<const EngineModel> removed;
  Do([&] {
    ended = ended_leaving_;
    leaving_.erase(index);
    closed_.erase(index);
    scheduler_.RemoveModel(index);
    removed = std::move(models_[static_cast<size_t>(index)]);
    OpenModels();
  });
  return ended;
}

// Lets others see which models there are, and what they may be asked.
void EngineImpl::OpenModels() {
  std::vector<OpenModel> open(models_.size());
  for (size_t i = 0; i < models_.size(); ++i) {
    const int index = static_cast<int>(i);
    if (models_[i] == nullptr || closed_.contains(index)) continue;
    open[i] = {models_[i], scheduler_.limits(index)};
  }
  mailbox_.SetModels(std::move(open), MakeQueueLimits());
  mailbox_.Publish(Counts(), rate_);
}

absl::StatusOr<RequestId> EngineImpl::Submit(
    Request request, std::shared_ptr<RequestSink> sink) {
  const OpenModel open = mailbox_.Find(request.model);
  if (open.model == nullptr || open.model->load_id != request.load_id) {
    return absl::UnavailableError("the model has been unloaded");
  }
  const EngineModel& model = *open.model;
  CHECK(!request.prompt.empty());
  CHECK(request.continuations.empty() || request.sampling.max_tokens == 0);
  CHECK(request.head_gates.empty() ||
        static_cast<int64_t>(request.head_gates.size()) ==
            model.model->layout().dense_query_heads())
      << request.head_gates.size() << " gates";
  const int32_t vocab = model.model->config().vocab;
  CHECK(RowsFit(request.kept_rows.get(), request, vocab) &&
        RowsFit(request.reference_rows.get(), request, vocab));
  const absl::Status fits = CheckFits(open.limits, request);
  if (!fits.ok()) return fits;
  const absl::Time now = clock_->Now();
  if (request.deadline <= now) {
    return absl::DeadlineExceededError("the deadline has already passed");
  }
  auto generation =
      std::make_unique<Generation>(request, model.model->config().eos_ids,
                                   model.tokenizer.get(), std::move(sink), now);
  return mailbox_.Submit(std::move(request), &model, std::move(generation));
}

QueueLimits EngineImpl::MakeQueueLimits() const {
  QueueLimits limits{options_.max_queued_requests, options_.max_queued_tokens,
                     options_.max_queued_bytes};
  if (limits.tokens > 0) return limits;
  for (size_t i = 0; i < models_.size(); ++i) {
    if (models_[i] == nullptr) continue;
    const SequenceLimits& model = scheduler_.limits(static_cast<int>(i));
    limits.tokens = std::max(limits.tokens, kQueuedPools * model.pool_tokens());
  }
  return limits;
}

}  // namespace headcount
