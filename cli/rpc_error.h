// What a failed call means to the person at the keyboard.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace headcount {

// The same code with a message of one line: the server's message, the fields
// that it blames and what to do (from google.rpc.BadRequest and RetryInfo), or,
// if no server answered, how to get one. `address` and `timeout` are those of
// the call.
absl::Status FromRpc(const grpc::Status& status, const std::string& address,
                     absl::Duration timeout);

}  // namespace headcount
