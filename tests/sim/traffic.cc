#include "tests/sim/traffic.h"

#include <algorithm>

namespace headcount::sim {
namespace {

// Unread tokens at which a stream is given up.
constexpr int32_t kOutbox = 24;
constexpr int kDuelBacklog = 6;

}  // namespace

Traffic::Traffic(uint64_t seed, const World& world, Scheduler* scheduler,
                 Oracle* oracle, Verdict* verdict)
    : random_(Mix(seed, 99)),
      world_(world),
      scheduler_(scheduler),
      oracle_(oracle),
      verdict_(verdict),
      index_(world.models.size(), -1) {}

void Traffic::Begin() {
  for (size_t i = 0; i < world_.models.size(); ++i) {
    if (world_.models[i].at_start) AddModel(i);
  }
}

StepEvents Traffic::Next(absl::Time now) {
  StepEvents events;
  RemoveIdleModel();
  if (!draining_ && random_.Chance(world_.toggles)) Toggle();
  if (leaving_ >= 0) {
    const int leaving = index_[static_cast<size_t>(leaving_)];
    for (const auto& record : oracle_->live()) {
      if (record->model == leaving && random_.Chance(0.2)) {
        Cancel(record->id, &events);
      }
    }
  }
  for (const auto& record : oracle_->live()) {
    if (random_.Chance(world_.cancels / static_cast<double>(world_.max_live))) {
      Cancel(record->id, &events);
    }
  }
  Read(&events);
  if (draining_) return events;
  if (world_.kind == WorldKind::kDuel) {
    ArriveDuel(now, &events);
  } else {
    Arrive(now, &events);
  }
  return events;
}

void Traffic::AddModel(size_t which) {
  SchedulerModel model = world_.models[which].model;
  if (model.base >= 0) model.base = index_[static_cast<size_t>(model.base)];
  const int base = world_.models[which].model.base;
  if (base >= 0 && (model.base < 0 || leaving_ == base)) return;
  const absl::StatusOr<int> added = scheduler_->AddModel(model);
  if (!added.ok()) return;
  index_[which] = *added;
  oracle_->AddedModel(*added, model);
}

// A model that is to go does so when its last request has ended.
void Traffic::RemoveIdleModel() {
  if (leaving_ < 0) return;
  int& index = index_[static_cast<size_t>(leaving_)];
  const auto& model = oracle_->model(index);
  if (model->running + model->waiting > 0) return;
  scheduler_->RemoveModel(index);
  oracle_->RemovedModel(index);
  index = -1;
  leaving_ = -1;
}

void Traffic::Toggle() {
  const auto which = static_cast<size_t>(
      random_.Pick(0, static_cast<int>(world_.models.size()) - 1));
  if (index_[which] < 0) {
    AddModel(which);
    return;
  }
  const auto variants =
      std::count_if(index_.begin(), index_.end(), [&](const int& index) {
        const auto other = static_cast<size_t>(&index - index_.data());
        return index >= 0 &&
               world_.models[other].model.base == static_cast<int>(which);
      });
  if (leaving_ < 0 && variants == 0) leaving_ = static_cast<int>(which);
}

int Traffic::PickModel() {
  // The one with a floor has little to do; the others flood.
  if (world_.kind == WorldKind::kFloors && random_.Chance(0.1)) return 0;
  const int which = random_.Pick(0, static_cast<int>(world_.models.size()) - 1);
  if (world_.kind == WorldKind::kFloors && which == 0) return 1;
  return which;
}

void Traffic::Arrive(absl::Time now, StepEvents* events) {
  int room = world_.max_live - static_cast<int>(oracle_->live().size());
  const bool burst = random_.Chance(0.01);
  if (burst) room += world_.max_live;
  for (bool more = burst || random_.Chance(world_.arrivals); more && room > 0;
       --room) {
    const int which = PickModel();
    const int index = index_[static_cast<size_t>(which)];
    // Now and then for a model that is not there any more.
    if ((index >= 0 && which != leaving_) || random_.Chance(0.05)) {
      Request request = MakeRequest(now, index);
      if (index < 0) request.model = oracle_->num_models() + random_.Pick(0, 1);
      Submit(std::move(request), events);
    }
    more = random_.Chance(burst ? 0.9 : world_.arrivals / 2);
  }
}

void Traffic::ArriveDuel(absl::Time now, StepEvents* events) {
  if (random_.Chance(b_pauses_ ? 0.004 : 0.002)) b_pauses_ = !b_pauses_;
  for (const char* const tenant : {"a", "b"}) {
    if (b_pauses_ && tenant[0] == 'b') continue;
    auto waiting = std::count_if(
        oracle_->live().begin(), oracle_->live().end(), [&](const auto& one) {
          return !one->running && one->tenant == tenant;
        });
    for (; waiting < kDuelBacklog; ++waiting) {
      Request request = MakeRequest(now, 0);
      request.tenant = tenant;
      request.priority = 0;
      request.deadline = absl::InfiniteFuture();
      request.continuations.clear();
      request.sampling.max_tokens = random_.Pick(1, world_.max_generated);
      Submit(std::move(request), events);
    }
  }
}

// Returns the words of the beginning that the prompt may share with others; it
// may be shorter than them.
Traffic::Beginning Traffic::AddPrompt(Request* request) {
  const int length = random_.Chance(0.2)
                         ? random_.Pick(1, world_.max_prompt)
                         : random_.Pick(1, std::min(world_.max_prompt, 60));
  // One of a few common beginnings, then its own.
  const int common = random_.Chance(0.6) ? random_.Pick(0, 100) : 0;
  const auto theme = static_cast<uint64_t>(random_.Pick(1, 3));
  const Beginning beginning{theme, common};
  for (int i = 0; i < length; ++i) {
    request->prompt.push_back(
        i < common ? beginning.Word(i)
                   : static_cast<int32_t>(random_.Next() % 50000));
  }
  return beginning;
}

int32_t Traffic::Beginning::Word(int position) const {
  return static_cast<int32_t>(Mix(theme, static_cast<uint64_t>(position)) %
                              50000);
}

Request Traffic::MakeRequest(absl::Time now, int model) {
  static constexpr const char* kTenants[] = {"", "a", "b", "c"};
  static constexpr const char* kSalts[] = {"", "", "", "s", "t"};
  Request request;
  request.model = model;
  request.tenant = kTenants[random_.Pick(0, 3)];
  request.cache_salt = kSalts[random_.Pick(0, 4)];
  if (world_.priorities) request.priority = random_.Pick(-1, 1);
  const Beginning beginning = AddPrompt(&request);
  const auto length = static_cast<int>(request.prompt.size());
  if (random_.Chance(0.15)) {
    for (int i = random_.Pick(1, 4); i > 0; --i) {
      std::vector<int32_t>& added = request.continuations.emplace_back();
      for (int j = random_.Pick(1, 40); j > 0; --j) {
        added.push_back(random_.Pick(0, 49999));
      }
    }
    // The first may be what others have in their prompts.
    if (length < beginning.words) {
      std::vector<int32_t>& known = request.continuations.front();
      known.clear();
      for (int i = length; i < beginning.words; ++i) {
        known.push_back(beginning.Word(i));
      }
    }
  } else if (!random_.Chance(0.05)) {
    request.sampling.max_tokens = random_.Pick(1, world_.max_generated);
  }
  if (random_.Chance(0.05)) request.head_gates = {0.5f};
  if (random_.Chance(world_.deadlines)) {
    request.deadline = now + absl::Milliseconds(random_.Pick(0, 800));
  }
  return request;
}

void Traffic::Submit(Request request, StepEvents* events) {
  if (request.model >= 0 && request.model < oracle_->num_models() &&
      oracle_->model(request.model)) {
    const bool fits =
        CheckFits(scheduler_->limits(request.model), request).ok();
    verdict_->Expect(fits == oracle_->Fits(request),
                     "I7 refuses what can never run and nothing else",
                     "a prompt of ", request.prompt.size(), " tokens, ",
                     request.sampling.max_tokens, " to come");
    // The scheduler refuses it itself when it comes all the same.
    if (!fits && !random_.Chance(0.05)) return;
  }
  Wish wish;
  if (random_.Chance(0.4)) wish.stop_after = random_.Pick(1, 60);
  wish.read_pace = random_.Chance(0.05) ? 0 : random_.Pick(1, 3);
  oracle_->Submitted(++last_id_, request, wish);
  events->submitted.push_back({last_id_, std::move(request)});
}

void Traffic::Cancel(RequestId id, StepEvents* events) {
  Record* const record = oracle_->Find(id);
  if (std::exchange(record->wish.cancelled, true)) return;
  events->ends.push_back(
      {id, draining_ ? EndCause::kError : EndCause::kCancelled});
}

// Who does not read is given up when its outbox is full.
void Traffic::Read(StepEvents* events) {
  for (const auto& record : oracle_->live()) {
    record->unread = std::max(0, record->unread - record->wish.read_pace);
    if (record->unread > kOutbox) Cancel(record->id, events);
  }
}

}  // namespace headcount::sim
