#include "cli/serve.h"

#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/human.h"
#include "cli/flags.h"
#include "cli/server_flags.h"
#include "cli/table.h"
#include "server/server.h"
#include "server/signals.h"

namespace headcount {
namespace {

// An address that a client on this machine can connect to.
std::string Reachable(const std::string& address) {
  return absl::StrReplaceAll(address,
                             {{"0.0.0.0:", "127.0.0.1:"}, {"[::]:", "[::1]:"}});
}

std::string ServedTable(
    const std::vector<std::shared_ptr<const ServedModel>>& models) {
  Table table({{"MODEL"},
               {"HEADS", Align::kRight},
               {"KV HEADS", Align::kRight},
               {"KV/TOKEN", Align::kRight},
               {"WEIGHTS", Align::kRight}});
  for (const auto& served : models) {
    const v1::Model& model = served->description;
    table.AddRow(
        {model.name(),
         absl::StrCat(model.query_heads(), "/", model.query_heads_unpruned()),
         absl::StrCat(model.kv_heads(), "/", model.kv_heads_unpruned()),
         FormatByteSize(model.kv_bytes_per_token()),
         FormatByteSize(model.weight_bytes())});
  }
  return table.Render();
}

// Why models are missing from the table; empty if none is.
std::string NotLoaded(const std::vector<FailedModel>& models) {
  std::string text;
  for (const FailedModel& model : models) {
    absl::StrAppend(&text, text.empty() ? "\nnot loaded:\n" : "", "  ",
                    model.status.message(), "\n");
  }
  return text;
}

// Commands that work when they are pasted into another terminal.
std::string ClientCommands(const Server& server, const Console& console) {
  std::string where;
  if (server.grpc_address() != "127.0.0.1:50051") {
    absl::StrAppend(&where, " --address ", Reachable(server.grpc_address()));
  }
  const auto models = server.models();
  if (models.empty()) {
    return absl::StrCat("  ", console.program, " list", where, "\n");
  }
  const ServedModel& first = *models.front();
  if (models.size() + server.failed_models().size() > 1) {
    absl::StrAppend(&where, " -m ", first.name);
  }
  return absl::StrCat(
      "  ", console.program, first.classify ? " classify" : " show", where,
      first.classify ? " 'Congratulations, you have won $1,000,000'" : "",
      "\n  ", console.program, " generate", where, " 'Dear list,'\n");
}

absl::Status Serve(const ServerFlags& flags, Console& console) {
  BlockTerminationSignals();
  const absl::StatusOr<config::v1::ServerConfig> config =
      ReadConfiguration(flags);
  if (!config.ok()) return config.status();
  const absl::StatusOr<std::unique_ptr<Server>> server =
      Server::Create(*config);
  if (!server.ok()) return server.status();
  if (absl::Status status = (*server)->Start(); !status.ok()) return status;

  console.out << "gRPC     " << (*server)->grpc_address() << "\n"
              << "metrics  http://" << (*server)->metrics_address()
              << "/metrics\n"
              << "device   " << (*server)->device() << "\n\n"
              << ServedTable((*server)->models())
              << NotLoaded((*server)->failed_models())
              << "\nTry, in another terminal:\n"
              << ClientCommands(**server, console) << std::flush;
  WaitForTerminationSignal();
  ExitOnNextTerminationSignal();
  (*server)->Drain();
  return (*server)->device_status();
}

}  // namespace

Command ServeCommand(CLI::App& root) {
  auto flags = std::make_shared<ServerFlags>();
  CLI::App& app = AddCommand(root, "serve",
                             "serve models over gRPC until SIGTERM or Ctrl-C");
  AddServerFlags(app, flags.get());
  app.footer(
      "Ctrl-C or SIGTERM drains: requests that run may end, then the server\n"
      "exits with 0; a second signal ends it at once. It also exits when the\n"
      "device fails for good, with the error: let a supervisor start it "
      "anew.\n\n"
      "A model that does not load is named with the reason, and the others\n"
      "are served; if none loads, the exit code is 1. 'headcount check'\n"
      "accepts no such model: run it before you change a server.\n\n" +
      Examples({
          {"one model on the default ports", "headcount serve models/mailroom"},
          {"the same without the heads that a mask names",
           "headcount serve models/mailroom --mask-file heads.json"},
          {"for other machines, with a larger pool",
           "headcount serve models/mailroom --listen 0.0.0.0:50051 "
           "--kv-pool 8GiB"},
          {"several models and all settings from a file",
           "headcount serve --config server.yaml"},
      }) +
      "\n"
      "A server.yaml with a model twice, once with half of its KV heads:\n"
      "  listen: 127.0.0.1:50051\n"
      "  kv_pool: 1GiB\n"
      "  models:\n"
      "    - source: {path: models/mailroom}\n"
      "    - name: mailroom-half\n"
      "      source: {path: models/mailroom}\n"
      "      heads: {mask_file: models/mailroom/heads_half.json}\n"
      "docs/config.md has every key.\n");
  return {.app = &app,
          .run = [flags](Console& console) { return Serve(*flags, console); }};
}

}  // namespace headcount
