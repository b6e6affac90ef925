#include "server/errors.h"

#include <array>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/config.h"
#include "server/limits.h"

namespace headcount {
namespace {

constexpr char kDomain[] = "headcount.dev";

constexpr std::array<absl::string_view, 15> kReasonNames = {
    "INVALID_REQUEST", "TOO_LONG",         "KV_EXHAUSTED", "UNKNOWN_MODEL",
    "MODEL_FAILED",    "MODEL_NOT_LOADED", "HAS_VARIANTS", "NOT_OFFERED",
    "QUEUE_FULL",      "DRAINING",         "SLOW_READER",  "DEADLINE",
    "CANCELLED",       "NOT_ALLOWED",      "INTERNAL"};

std::string TypeUrl(const google::protobuf::Message& message) {
  return absl::StrCat("type.googleapis.com/",
                      message.GetDescriptor()->full_name());
}

void Attach(const google::protobuf::Message& detail, absl::Status* status) {
  status->SetPayload(TypeUrl(detail), absl::Cord(detail.SerializeAsString()));
}

void AttachModel(absl::string_view name, absl::Status* status) {
  google::rpc::ResourceInfo resource;
  resource.set_resource_type("headcount.dev/Model");
  resource.set_resource_name(std::string(name));
  Attach(resource, status);
}

// Parses the detail of T's type, if there is one.
template <typename T>
std::optional<T> DetailOf(const absl::Status& status) {
  T detail;
  const absl::optional<absl::Cord> payload = status.GetPayload(TypeUrl(detail));
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) {
    return std::nullopt;
  }
  return detail;
}

Reason ReasonOfCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kCancelled:
      return Reason::kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return Reason::kDeadline;
    case absl::StatusCode::kInvalidArgument:
      return Reason::kInvalidRequest;
    case absl::StatusCode::kResourceExhausted:
      return Reason::kQueueFull;
    case absl::StatusCode::kUnavailable:
      return Reason::kDraining;
    default:
      return Reason::kInternal;
  }
}

}  // namespace

absl::string_view ReasonName(Reason reason) {
  return kReasonNames[static_cast<size_t>(reason)];
}

absl::Status FieldError(absl::string_view field, absl::string_view text,
                        Reason reason) {
  absl::Status status =
      absl::InvalidArgumentError(absl::StrCat(field, ": ", text));
  google::rpc::BadRequest bad_request;
  google::rpc::BadRequest::FieldViolation* violation =
      bad_request.add_field_violations();
  violation->set_field(std::string(field));
  violation->set_description(std::string(text));
  Attach(bad_request, &status);
  return WithReason(std::move(status), reason);
}

absl::Status UnknownModelError(absl::string_view name) {
  const std::string shown =
      IsModelName(name) ? absl::StrCat(" '", name, "'") : "";
  absl::Status status =
      absl::NotFoundError(absl::StrCat("model", shown,
                                       " is not served; ListModels names those "
                                       "that are"));
  AttachModel(IsModelName(name) ? name : "", &status);
  return WithReason(std::move(status), Reason::kUnknownModel);
}

absl::Status ModelFailedError(absl::string_view name, absl::string_view error) {
  absl::Status status = absl::FailedPreconditionError(
      absl::StrCat("model '", name, "' did not load: ", error));
  AttachModel(name, &status);
  return WithReason(std::move(status), Reason::kModelFailed);
}

absl::Status ModelNotLoadedError(absl::string_view name) {
  absl::Status status = absl::FailedPreconditionError(absl::StrCat(
      "model '", name, "' is not loaded; load it: headcount load ", name));
  AttachModel(name, &status);
  return WithReason(std::move(status), Reason::kModelNotLoaded);
}

absl::Status ModelLoadingError(absl::string_view name) {
  absl::Status status = absl::UnavailableError(
      absl::StrCat("model '", name, "' is being loaded; try again soon"));
  AttachModel(name, &status);
  return WithRetry(WithReason(std::move(status), Reason::kModelNotLoaded),
                   kMinRetryDelay);
}

absl::Status BaseNotLoadedError(absl::string_view name,
                                absl::string_view base) {
  absl::Status status = absl::FailedPreconditionError(absl::StrCat(
      "model '", name, "' is a variant of '", base,
      "', which is not loaded; load that first: headcount load ", base));
  AttachModel(base, &status);
  return WithReason(std::move(status), Reason::kModelNotLoaded);
}

absl::Status HasVariantsError(absl::string_view name,
                              const std::vector<std::string>& variants) {
  absl::Status status = absl::FailedPreconditionError(
      absl::StrCat("model '", name, "' has variants that share its weights, '",
                   absl::StrJoin(variants, "', '"), "'; unload them first"));
  AttachModel(name, &status);
  return WithReason(std::move(status), Reason::kHasVariants);
}

absl::Status InField(absl::string_view field, const absl::Status& status) {
  absl::Status result(status.code(),
                      absl::StrCat(field, ": ", status.message()));
  status.ForEachPayload(
      [&result](absl::string_view url, const absl::Cord& payload) {
        result.SetPayload(url, payload);
      });
  return result;
}

absl::Status WithReason(absl::Status status, Reason reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(ReasonName(reason)));
  info.set_domain(kDomain);
  Attach(info, &status);
  return status;
}

absl::Status WithRetry(absl::Status status, absl::Duration delay) {
  google::rpc::RetryInfo retry;
  const int64_t nanos = absl::ToInt64Nanoseconds(delay);
  retry.mutable_retry_delay()->set_seconds(nanos / 1000000000);
  retry.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(nanos % 1000000000));
  Attach(retry, &status);
  return status;
}

Reason ReasonOf(const absl::Status& status) {
  const std::optional<google::rpc::ErrorInfo> info =
      DetailOf<google::rpc::ErrorInfo>(status);
  if (info.has_value()) {
    for (size_t i = 0; i < kReasonNames.size(); ++i) {
      if (kReasonNames[i] == info->reason()) return static_cast<Reason>(i);
    }
  }
  return ReasonOfCode(status.code());
}

std::optional<absl::Duration> RetryDelayOf(const absl::Status& status) {
  const std::optional<google::rpc::RetryInfo> retry =
      DetailOf<google::rpc::RetryInfo>(status);
  if (!retry.has_value()) return std::nullopt;
  return absl::Seconds(retry->retry_delay().seconds()) +
         absl::Nanoseconds(retry->retry_delay().nanos());
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const absl::Status full = WithReason(status, ReasonOf(status));
  const std::string message(full.message());
  google::rpc::Status rpc;
  rpc.set_code(static_cast<int32_t>(full.code()));
  rpc.set_message(message);
  full.ForEachPayload([&rpc](absl::string_view url, const absl::Cord& value) {
    google::protobuf::Any* detail = rpc.add_details();
    detail->set_type_url(std::string(url));
    detail->set_value(std::string(value));
  });
  return grpc::Status(static_cast<grpc::StatusCode>(full.code()), message,
                      rpc.SerializeAsString());
}

}  // namespace headcount
