#include "cli/check.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/human.h"
#include "cli/flags.h"
#include "cli/model_files.h"
#include "cli/model_view.h"
#include "cli/output.h"
#include "cli/server_flags.h"
#include "server/config.h"
#include "server/config_paths.h"
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

// By name of the model, in the order of the configuration; a variant has none.
using FilesByName = std::vector<std::pair<std::string, ModelFiles>>;

void PrintFiles(const FilesByName& models, const CheckOptions& options,
                Console& console) {
  if (options.output == OutputFormat::kTable) {
    for (const auto& [name, files] : models) {
      console.out << RenderModelFiles(files) << "\n";
    }
    return;
  }
  Json json = {{"models", Json::array()}};
  for (const auto& [name, files] : models) {
    json["models"].push_back({{"files", ModelFilesJson(files)}});
  }
  PrintJson(console, json);
}

void PrintServed(const FilesByName& models, const Server& server, int64_t pool,
                 const CheckOptions& options, Console& console) {
  if (options.output == OutputFormat::kJson) {
    Json json = {{"kv_pool_bytes", pool}, {"models", Json::array()}};
    for (const auto& model : server.models()) {
      Json entry = ModelJson(model->description);
      entry["kv_pool_tokens"] = PoolTokens(pool, model->description);
      for (const auto& [name, files] : models) {
        if (name == model->name) entry["files"] = ModelFilesJson(files);
      }
      json["models"].push_back(std::move(entry));
    }
    PrintJson(console, json);
    return;
  }
  PrintFiles(models, options, console);
  for (const auto& model : server.models()) {
    console.out << RenderModel(model->description) << "\n";
  }
  console.out << "KV pool of " << FormatByteSize(pool) << ":\n";
  for (const auto& model : server.models()) {
    console.out << "  " << FormatCount(PoolTokens(pool, model->description))
                << " tokens of " << model->name << " alone\n";
  }
  console.out << "ok\n";
}

// Says what the files are also where they cannot be served.
absl::Status Check(const CheckOptions& options, Console& console) {
  PathKeys keys;
  absl::StatusOr<config::v1::ServerConfig> config =
      ReadConfiguration(options.server, &keys);
  if (!config.ok()) return config.status();
  FilesByName models;
  absl::Status problem;
  for (config::v1::ModelSpec& spec : *config->mutable_models()) {
    spec.set_preload("on");  // it will have to, some time
    problem.Update(CheckPaths(spec, keys));
    if (IsVariant(spec)) continue;
    models.emplace_back(spec.name(), ReadModelFiles(spec.source().path()));
    for (const absl::Status& status : models.back().second.problems) {
      problem.Update(status);
    }
  }
  // All that serving does, but for the ports; and every model has to load.
  absl::StatusOr<std::unique_ptr<Server>> server =
      problem.ok() ? Server::Create(*config) : problem;
  problem = server.status();
  if (problem.ok() && !(*server)->failed_models().empty()) {
    problem = (*server)->failed_models().front().status;
  }
  if (!problem.ok()) {
    PrintFiles(models, options, console);
    return problem;
  }
  PrintServed(models, **server, (*server)->kv_pool_bytes(), options, console);
  return absl::OkStatus();
}

}  // namespace

Command CheckCommand(CLI::App& root) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App& app = AddCommand(
      root, "check",
      "what is this, would it serve, and what would it cost? Opens no port");
  AddServerFlags(app, &options->server);
  AddOutput(app, &options->output);
  app.footer(
      "Takes the flags of 'headcount serve', says what the files of each "
      "model\n"
      "are, loads everything and exits: 0 if all of it would be served, 1\n"
      "with the first error otherwise.\n\n" +
      Examples({
          {"a folder that was downloaded", "headcount check models/mailroom"},
          {"a GGUF file", "headcount check SmolLM2-135M-Instruct.Q4_1.gguf"},
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
