// Errors as clients see them: absl::Status inside the server, with the
// google.rpc details as payloads; grpc::Status at its edge.
//
//   return FieldError("sampling.top_p", "1.5 is not over 0 and at most 1");
//   ...
//   FinishCall(status, context, reactor);
//
// Texts name fields, values that are numbers, and limits; never a prompt, never
// a path.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace headcount {

// ErrorInfo.reason; its domain is "headcount.dev".
enum class Reason {
  kInvalidRequest,
  kTooLong,      // over the context of the model
  kKvExhausted,  // over an empty KV pool
  kUnknownModel,
  kModelFailed,  // it did not load
  kModelNotLoaded,
  kHasVariants,  // others share its weights
  kNotOffered,   // the model is not set up for the method
  kQueueFull,
  kDraining,
  kSlowReader,
  kDeadline,
  kCancelled,
  kNotAllowed,
  kInternal,
};
absl::string_view ReasonName(Reason reason);  // "QUEUE_FULL"

// INVALID_ARGUMENT "`field`: `text`" with a BadRequest that names the field.
absl::Status FieldError(absl::string_view field, absl::string_view text,
                        Reason reason = Reason::kInvalidRequest);

// NOT_FOUND with ResourceInfo. A name that no model can have is not repeated.
absl::Status UnknownModelError(absl::string_view name);

// FAILED_PRECONDITION with ResourceInfo, for a model that did not load; `error`
// as clients may read it.
absl::Status ModelFailedError(absl::string_view name, absl::string_view error);

// FAILED_PRECONDITION with ResourceInfo, for a configured model that is not
// loaded; UNAVAILABLE with RetryInfo as well, for one that is being loaded.
absl::Status ModelNotLoadedError(absl::string_view name);
absl::Status ModelLoadingError(absl::string_view name);

// FAILED_PRECONDITION with ResourceInfo: a variant cannot be loaded without its
// base, and a base cannot be unloaded while others share its weights.
absl::Status BaseNotLoadedError(absl::string_view name, absl::string_view base);
absl::Status HasVariantsError(absl::string_view name,
                              const std::vector<std::string>& variants);

// `status`, with its details, and `field` before its text.
absl::Status InField(absl::string_view field, const absl::Status& status);

// `status` with an ErrorInfo; with a RetryInfo.
absl::Status WithReason(absl::Status status, Reason reason);
absl::Status WithRetry(absl::Status status, absl::Duration delay);

// What WithReason and WithRetry put there; a status without an ErrorInfo has
// the reason that its code suggests.
Reason ReasonOf(const absl::Status& status);
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

// Code, text and all payloads, as a serialised google.rpc.Status in the
// details. `status` is OK or carries an ErrorInfo afterwards.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace headcount
