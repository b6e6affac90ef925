#include "cli/rpc_error.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/console.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace headcount {
namespace {

struct Details {
  google::rpc::BadRequest bad_request;
  absl::Duration retry_after = absl::ZeroDuration();  // zero: not said
  bool from_server = false;  // a server of ours spoke, not the transport
};

Details ReadDetails(const grpc::Status& status) {
  Details details;
  google::rpc::Status rich;
  if (!rich.ParseFromString(status.error_details())) return details;
  details.from_server = rich.details_size() > 0;
  for (const google::protobuf::Any& any : rich.details()) {
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&retry)) {
      details.retry_after = absl::Seconds(retry.retry_delay().seconds()) +
                            absl::Nanoseconds(retry.retry_delay().nanos());
    }
    any.UnpackTo(&details.bad_request);
  }
  return details;
}

// "sampling.temperature: must be finite", unless the message says so already.
std::string Fields(const google::rpc::BadRequest& bad_request,
                   const std::string& message) {
  std::string text;
  for (const auto& violation : bad_request.field_violations()) {
    const bool said = absl::StrContains(message, violation.description()) &&
                      absl::StrContains(message, violation.field());
    if (said) continue;
    absl::StrAppend(&text, "; ", violation.field(), ": ",
                    violation.description());
  }
  return text;
}

}  // namespace

absl::Status FromRpc(const grpc::Status& status, const std::string& address,
                     absl::Duration timeout) {
  if (status.ok()) return absl::OkStatus();
  const Details details = ReadDetails(status);
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  std::string message = status.error_message();
  if (code == absl::StatusCode::kUnavailable && !details.from_server) {
    message = absl::StrCat("no answer from ", address, " (", message,
                           "); start a server with 'headcount serve', or name "
                           "another with --address");
  } else if (code == absl::StatusCode::kDeadlineExceeded) {
    message = absl::StrCat("not finished within --timeout ",
                           absl::FormatDuration(timeout));
  }
  message += Fields(details.bad_request, message);
  if (details.retry_after > absl::ZeroDuration()) {
    absl::StrAppend(&message, "; try again in ",
                    absl::FormatDuration(details.retry_after));
  }
  return absl::Status(code, Printable(message));
}

}  // namespace headcount
