// "host:port" as operators write it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace headcount {

struct ListenAddress {
  std::string host;  // a name or a number; IPv6 without its brackets
  uint16_t port = 0;

  std::string ToString() const;  // IPv6 in brackets
};

// InvalidArgument for anything but host:port.
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text);

// Binds the address for a moment, to say why it cannot be served before a
// library says less: FailedPrecondition when it is in use, InvalidArgument when
// it is not this machine's, PermissionDenied when the port is reserved. Returns
// it with the host as a number.
absl::StatusOr<ListenAddress> CheckListenAddress(const ListenAddress& address);

// Connects to it and hangs up, which wakes a server that waits for somebody to
// come. Whether it worked does not matter.
void Knock(const ListenAddress& address);

}  // namespace headcount
