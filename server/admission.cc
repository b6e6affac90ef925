#include "server/admission.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "server/errors.h"
#include "server/limits.h"
#include "server/random_bits.h"

namespace headcount {
namespace {

// +-20 %, so that clients that were refused together do not return together.
absl::Duration Jittered(absl::Duration delay) {
  return delay * (0.8 + 0.4 * RandomFraction());
}

// The engine's "prompt: ..." or "max_tokens: ..." as an error of a field of the
// call; `prompt` is what the call's own prompt is called.
absl::Status CannotFit(const absl::Status& status, absl::string_view prompt) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(status.message(), absl::MaxSplits(": ", 1));
  const absl::string_view field =
      parts.first == "prompt" ? prompt : parts.first;
  return FieldError(field, parts.second, Reason::kKvExhausted);
}

}  // namespace

absl::Duration QueueDelay(const EngineSnapshot& snapshot) {
  absl::Duration delay = absl::Seconds(1);
  if (snapshot.tokens_per_second > 0) {
    delay = absl::Seconds(static_cast<double>(snapshot.queued_tokens) /
                          snapshot.tokens_per_second);
  }
  return std::clamp(delay, kMinRetryDelay, kMaxRetryDelay);
}

absl::StatusOr<RequestId> Admission::Submit(Request request,
                                            std::shared_ptr<RequestSink> sink,
                                            absl::string_view field) {
  const absl::Status open = CheckOpen();
  if (!open.ok()) return open;
  absl::StatusOr<RequestId> id =
      engine_->Submit(std::move(request), std::move(sink));
  if (id.ok()) return id;
  if (absl::IsInvalidArgument(id.status())) {
    return CannotFit(id.status(), field);
  }
  return Described(id.status());
}

absl::Status Admission::CheckOpen() const {
  if (!closed_) return absl::OkStatus();
  return Described(
      absl::UnavailableError("the server is draining; try another"));
}

absl::Status Admission::Described(const absl::Status& status) const {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return WithRetry(WithReason(status, Reason::kQueueFull),
                       Jittered(QueueDelay(engine_->Snapshot())));
    case absl::StatusCode::kUnavailable:
      // Another server can answer at once.
      return WithRetry(WithReason(status, Reason::kDraining),
                       Jittered(kMinRetryDelay));
    default:
      return status;
  }
}

}  // namespace headcount
