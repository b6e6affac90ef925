#include "server/call_record.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/errors.h"
#include "server/limits.h"
#include "server/random_bits.h"

namespace headcount {
namespace {

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
}

absl::string_view MetadataValue(const grpc::CallbackServerContext& context,
                                const char* key) {
  const auto found = context.client_metadata().find(key);
  if (found == context.client_metadata().end()) return {};
  return {found->second.data(), found->second.size()};
}

bool Succeeded(Outcome outcome) {
  return outcome == Outcome::kStop || outcome == Outcome::kLength;
}

}  // namespace

absl::string_view TraceIdOf(absl::string_view traceparent) {
  constexpr size_t kLength = 2 + 1 + 32 + 1 + 16 + 1 + 2;
  if (traceparent.size() != kLength || traceparent.substr(0, 3) != "00-" ||
      traceparent[35] != '-' || traceparent[52] != '-') {
    return {};
  }
  const absl::string_view trace_id = traceparent.substr(3, 32);
  const bool zero = trace_id.find_first_not_of('0') == absl::string_view::npos;
  if (zero || !IsHex(trace_id) || !IsHex(traceparent.substr(36, 16)) ||
      !IsHex(traceparent.substr(53))) {
    return {};
  }
  return trace_id;
}

bool IsRequestId(absl::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  absl::string_view("._:/-").find(c) != absl::string_view::npos;
         });
}

bool IsTenant(absl::string_view tenant) {
  return tenant.size() <= kMaxTenantBytes &&
         std::all_of(tenant.begin(), tenant.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  absl::string_view("._-").find(c) != absl::string_view::npos;
         });
}

bool IsLocalPeer(absl::string_view peer) {
  return absl::StartsWith(peer, "ipv4:127.") ||
         absl::StartsWith(peer, "ipv6:[::1]:") ||
         absl::StartsWith(peer, "ipv6:%5B::1%5D:") ||
         absl::StartsWith(peer, "unix:");
}

absl::Status CheckAdmin(Admin admin, absl::string_view peer) {
  if (admin == Admin::kAny) return absl::OkStatus();
  if (admin == Admin::kLocal && IsLocalPeer(peer)) return absl::OkStatus();
  const char* const why =
      admin == Admin::kOff
          ? "nobody may change what this server serves: its configuration has "
            "`admin: off`"
          : "only clients on the server's machine may change what it serves, "
            "unless its configuration has `admin: any`";
  return WithReason(absl::PermissionDeniedError(why), Reason::kNotAllowed);
}

bool IsOutOfTime(absl::Time now, absl::Time arrival, absl::Time deadline) {
  constexpr absl::Duration kTravel = absl::Milliseconds(20);
  return now >= deadline - kTravel - (deadline - arrival) / 100;
}

absl::Status StatusOf(const Ending& ending, const Admission& admission) {
  switch (ending.cause) {
    case EndCause::kStop:
    case EndCause::kLength:
      return absl::OkStatus();
    case EndCause::kCancelled:
      return absl::CancelledError("cancelled");
    case EndCause::kDeadline:
      return absl::DeadlineExceededError("the deadline has passed");
    case EndCause::kError:
      break;
  }
  if (ending.status.ok()) return absl::InternalError("ended without a cause");
  return admission.Described(ending.status);
}

CallRecord::CallRecord(RpcMethod method, grpc::CallbackServerContext* context,
                       const Serving* serving)
    : serving_(serving),
      method_(method),
      context_(context),
      arrival_(serving->clock->Now()),
      deadline_(std::min(absl::FromChrono(context->deadline()),
                         arrival_ + kMaxDeadline)),
      tenant_(MetadataValue(*context, "x-headcount-tenant")) {
  line_.method = NamesOf(method).method;
  const absl::string_view id = MetadataValue(*context, "x-request-id");
  line_.request_id =
      IsRequestId(id) ? std::string(id)
                      : absl::StrCat(absl::Hex(RandomBits(), absl::kZeroPad16));
  line_.trace_id =
      std::string(TraceIdOf(MetadataValue(*context, "traceparent")));
  context->AddInitialMetadata("x-request-id", line_.request_id);
  serving->metrics->CallStarted(method);
}

absl::Status CallRecord::CheckAdmin() const {
  return headcount::CheckAdmin(serving_->admin, context_->peer());
}

void CallRecord::Complete(Request* request) const {
  request->deadline = deadline_;
  request->tenant = tenant_;
}

void CallRecord::NameModel(absl::string_view name) {
  if (serving_->models->FindEntry(name).has_value()) {
    line_.model = std::string(name);
  }
}

absl::StatusOr<std::shared_ptr<const ServedModel>> CallRecord::FindModel(
    absl::string_view name) {
  const absl::StatusOr<std::shared_ptr<const ServedModel>> model =
      serving_->models->Find(name);
  if (!model.ok()) {
    NameModel(name);
    return model;
  }
  model_ = (*model)->position;
  line_.model = (*model)->name;
  return model;
}

absl::StatusOr<std::shared_ptr<const ServedModel>> CallRecord::FindModelToRun(
    absl::string_view name) {
  const absl::Status open = serving_->admission->CheckOpen();
  if (!open.ok()) return open;
  if (!IsTenant(tenant_)) {
    return FieldError("x-headcount-tenant",
                      absl::StrCat("at most ", kMaxTenantBytes,
                                   " letters, digits, '.', '_' and '-'"));
  }
  return FindModel(name);
}

void CallRecord::AddEnding(Outcome outcome, const Ending& ending) {
  if (outcome == Outcome::kCancelled &&
      IsOutOfTime(serving_->clock->Now(), arrival_, deadline_)) {
    outcome = Outcome::kDeadline;
  }
  serving_->metrics->RequestEnded(model_, outcome, ending);
  // The first that did not succeed is what the call is remembered for.
  if (!outcome_.has_value() || Succeeded(*outcome_)) outcome_ = outcome;
  line_.prompt_tokens += ending.prompt_tokens;
  line_.generated_tokens += ending.generated_tokens;
  line_.cached_tokens += ending.cached_tokens;
  if (ending.scheduled != absl::InfinitePast()) {
    line_.queue = std::max(line_.queue.value_or(absl::ZeroDuration()),
                           ending.scheduled - ending.submitted);
  }
  if (ending.first_token != absl::InfinitePast()) {
    line_.time_to_first_token = ending.first_token - arrival_;
  }
}

void CallRecord::AddRejection(const absl::Status& status) {
  if (!outcome_.has_value() || Succeeded(*outcome_)) {
    outcome_ = absl::IsDeadlineExceeded(status) ? Outcome::kDeadline
                                                : Outcome::kRejected;
  }
  serving_->metrics->RequestRejected(model_, ReasonOf(status));
}

v1::Usage CallRecord::Usage() const {
  v1::Usage usage;
  usage.set_prompt_tokens(static_cast<int32_t>(line_.prompt_tokens));
  usage.set_cached_tokens(static_cast<int32_t>(line_.cached_tokens));
  usage.set_generated_tokens(static_cast<int32_t>(line_.generated_tokens));
  usage.set_time_to_first_token_ms(absl::ToDoubleMilliseconds(
      line_.time_to_first_token.value_or(absl::ZeroDuration())));
  usage.set_total_ms(
      absl::ToDoubleMilliseconds(serving_->clock->Now() - arrival_));
  return usage;
}

grpc::Status CallRecord::Conclude(const absl::Status& status) {
  const std::optional<absl::Duration> retry = RetryDelayOf(status);
  if (retry.has_value()) {
    // gRPC's own clients wait as told (gRFC A6).
    context_->AddTrailingMetadata(
        "grpc-retry-pushback-ms",
        absl::StrCat(absl::ToInt64Milliseconds(*retry)));
  }
  grpc::Status result = ToGrpcStatus(status);
  line_.total = serving_->clock->Now() - arrival_;
  line_.code = GrpcCodeLabel(result.error_code());
  if (outcome_.has_value()) line_.outcome = OutcomeName(*outcome_);
  serving_->metrics->CallHandled(method_, result.error_code(), line_.total);
  return result;
}

void CallRecord::WriteLog() const { serving_->log->Request(line_); }

}  // namespace headcount
