#include "cli/client.h"

#include <utility>

#include "cli/flags.h"
#include "cli/rpc_error.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace headcount {

void AddClientFlags(CLI::App& app, ClientOptions* options) {
  app.add_option("--address", options->address, "the server to ask")
      ->type_name("HOST:PORT")
      ->group("Connection");
  AddDuration(
      app, "--timeout",
      [options](absl::Duration timeout) { options->timeout = timeout; },
      "longest time that a call may take")
      ->default_str(absl::FormatDuration(options->timeout))
      ->group("Connection");
  app.add_option("--tenant", options->tenant,
                 "who asks: tenants share a model fairly, and no prefixes")
      ->type_name("NAME")
      ->group("Connection");
}

Client::Client(ClientOptions options) : options_(std::move(options)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  channel_ = grpc::CreateCustomChannel(
      options_.address, grpc::InsecureChannelCredentials(), arguments);
}

void Client::Prepare(grpc::ClientContext* context) const {
  context->set_deadline(absl::ToChronoTime(absl::Now() + options_.timeout));
  if (!options_.tenant.empty()) {
    context->AddMetadata("x-headcount-tenant", options_.tenant);
  }
}

absl::Status Client::Check(const grpc::Status& status) const {
  return FromRpc(status, options_.address, options_.timeout);
}

}  // namespace headcount
