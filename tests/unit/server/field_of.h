// What an error says of a request.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "google/rpc/error_details.pb.h"

namespace headcount {

// The field that the BadRequest of `status` names; empty: there is none.
inline std::string FieldOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload =
      status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  google::rpc::BadRequest bad_request;
  if (!payload.has_value() ||
      !bad_request.ParseFromString(std::string(*payload))) {
    return "";
  }
  return bad_request.field_violations(0).field();
}

}  // namespace headcount
