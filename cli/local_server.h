// A server inside this process, for a command that brings its model along.
//
//   absl::StatusOr<std::unique_ptr<LocalServer>> server =
//       LocalServer::Start({*ReadModelSpec("models/mailroom")});
//   Client client({.address = (*server)->address()});
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "headcount/config/v1/config.pb.h"
#include "server/server.h"

namespace headcount {

// Drains when it goes, after all of its clients' calls.
class LocalServer {
 public:
  // What `headcount serve --calibration` would serve with its other defaults,
  // but without a prefix cache, on ports of 127.0.0.1 that are free, and with
  // warnings only in its log. The first of `models` is loaded, or its error is
  // returned. An Interrupt is made before, since this starts threads.
  static absl::StatusOr<std::unique_ptr<LocalServer>> Start(
      const std::vector<config::v1::ModelSpec>& models);
  LocalServer(const LocalServer&) = delete;
  LocalServer& operator=(const LocalServer&) = delete;
  ~LocalServer() { server_->Drain(); }

  const std::string& address() const { return server_->grpc_address(); }

 private:
  explicit LocalServer(std::unique_ptr<Server> server)
      : server_(std::move(server)) {}

  const std::unique_ptr<Server> server_;
};

}  // namespace headcount
