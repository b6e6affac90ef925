// How the client commands reach a server.
#pragma once

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace headcount {

struct ClientOptions {
  std::string address = "127.0.0.1:50051";
  absl::Duration timeout = absl::Minutes(5);
  std::string tenant = {};  // empty: the one without a name
};

// --address, --timeout and --tenant.
void AddClientFlags(CLI::App& app, ClientOptions* options);

// Thread-safe. Connects with the first call, plainly (no TLS) and never through
// an HTTP proxy.
class Client {
 public:
  explicit Client(ClientOptions options);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  const std::string& address() const { return options_.address; }

  // Gives the call its deadline and tenant.
  void Prepare(grpc::ClientContext* context) const;

  // FromRpc with what this client knows.
  absl::Status Check(const grpc::Status& status) const;

 private:
  const ClientOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace headcount
