#include "server/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace headcount {
namespace {

absl::Status BindError(const ListenAddress& address, int error) {
  const std::string text = address.ToString();
  switch (error) {
    case EADDRINUSE:
      return absl::FailedPreconditionError(absl::StrCat(
          text, " is in use; stop what listens there or choose another port"));
    case EADDRNOTAVAIL:
      return absl::InvalidArgumentError(
          absl::StrCat(text, " is not an address of this machine"));
    case EACCES:
      return absl::PermissionDeniedError(
          absl::StrCat(text, " needs privileges; choose a port from 1024 up"));
    default:
      return absl::InternalError(
          absl::StrCat(text, " cannot be bound: ", std::strerror(error)));
  }
}

struct FreeAddrinfo {
  void operator()(addrinfo* info) const { freeaddrinfo(info); }
};
using Resolved = std::unique_ptr<addrinfo, FreeAddrinfo>;

absl::StatusOr<Resolved> Resolve(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int result = getaddrinfo(
      address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found);
  if (result != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        address.ToString(), " cannot be resolved: ", gai_strerror(result)));
  }
  return Resolved(found);
}

}  // namespace

std::string ListenAddress::ToString() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  return ipv6 ? absl::StrCat("[", host, "]:", port)
              : absl::StrCat(host, ":", port);
}

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  absl::string_view host = text.substr(0, colon);
  const bool bracketed =
      host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  uint32_t port = 0;
  if (colon == absl::string_view::npos || host.empty() || host == "[]" ||
      (!bracketed && host.find(':') != absl::string_view::npos) ||
      !absl::SimpleAtoi(text.substr(colon + 1), &port) || port > UINT16_MAX) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is not host:port, such as 127.0.0.1:50051 or [::1]:0"));
  }
  return ListenAddress{.host = std::string(host),
                       .port = static_cast<uint16_t>(port)};
}

absl::StatusOr<ListenAddress> CheckListenAddress(const ListenAddress& address) {
  const absl::StatusOr<Resolved> resolved = Resolve(address);
  if (!resolved.ok()) return resolved.status();
  const addrinfo& found = **resolved;
  const int socket_fd = socket(found.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0) return BindError(address, errno);
  const absl::Cleanup close_socket = [socket_fd] { close(socket_fd); };
  // As gRPC and the metrics port do, so that a connection in TIME_WAIT is no
  // obstacle.
  const int on = 1;
  setsockopt(socket_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(socket_fd, found.ai_addr, found.ai_addrlen) != 0 ||
      listen(socket_fd, 1) != 0) {
    return BindError(address, errno);
  }
  char numeric[NI_MAXHOST];
  if (getnameinfo(found.ai_addr, found.ai_addrlen, numeric, sizeof(numeric),
                  nullptr, 0, NI_NUMERICHOST) != 0) {
    return BindError(address, EADDRNOTAVAIL);
  }
  return ListenAddress{.host = numeric, .port = address.port};
}

void Knock(const ListenAddress& address) {
  const absl::StatusOr<Resolved> resolved = Resolve(address);
  if (!resolved.ok()) return;
  const addrinfo& found = **resolved;
  const int socket_fd = socket(found.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0) return;
  connect(socket_fd, found.ai_addr, found.ai_addrlen);
  close(socket_fd);
}

}  // namespace headcount
