#include "cli/check.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/human.h"
#include "cli/flags.h"
#include "cli/model_view.h"
#include "cli/output.h"
#include "cli/server_flags.h"
#include "server/config.h"
#include "server/server.h"

namespace headcount {
namespace {

struct CheckOptions {
  ServerFlags server;
  OutputFormat output = OutputFormat::kTable;
};

// Tokens of the model alone that the pool can hold.
int64_t PoolTokens(int64_t pool_bytes, const v1::Model& model) {
  const int64_t bytes = model.kv_bytes_per_token();
  return bytes > 0 ? pool_bytes / bytes : 0;
}

absl::Status Check(const CheckOptions& options, Console& console) {
  const absl::StatusOr<config::v1::ServerConfig> config =
      ReadConfiguration(options.server);
  if (!config.ok()) return config.status();
  // All that serving does, but for the ports.
  const absl::StatusOr<std::unique_ptr<Server>> server =
      Server::Create(*config);
  if (!server.ok()) return server.status();

  const int64_t pool = EngineOptionsOf(*config).kv_pool_bytes;
  if (options.output == OutputFormat::kJson) {
    Json json = {{"kv_pool_bytes", pool}, {"models", Json::array()}};
    for (const ServedModel& model : (*server)->models()) {
      Json entry = ModelJson(model.description);
      entry["kv_pool_tokens"] = PoolTokens(pool, model.description);
      json["models"].push_back(std::move(entry));
    }
    PrintJson(console, json);
    return absl::OkStatus();
  }
  for (const ServedModel& model : (*server)->models()) {
    console.out << RenderModel(model.description) << "\n";
  }
  console.out << "KV pool of " << FormatByteSize(pool) << ":\n";
  for (const ServedModel& model : (*server)->models()) {
    console.out << "  " << FormatCount(PoolTokens(pool, model.description))
                << " tokens of " << model.name << " alone\n";
  }
  console.out << "ok\n";
  return absl::OkStatus();
}

}  // namespace

Command CheckCommand(CLI::App& root) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App& app = AddCommand(
      root, "check", "would this serve, and what would it cost? Opens no port");
  AddServerFlags(app, &options->server);
  AddOutput(app, &options->output);
  app.footer(
      "Takes the flags of 'headcount serve', loads everything and exits: 0 if\n"
      "it would serve, 1 with the first error otherwise.\n\n" +
      Examples({
          {"a folder that was downloaded", "headcount check models/mailroom"},
          {"what would a mask save?",
           "headcount check models/mailroom --mask-file heads.json"},
          {"a configuration, before it is rolled out",
           "headcount check --config server.yaml"},
      }));
  return {.app = &app, .run = [options](Console& console) {
            return Check(*options, console);
          }};
}

}  // namespace headcount
