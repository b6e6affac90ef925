#include "cli/server_flags.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/human.h"
#include "cli/flags.h"
#include "cli/number_flags.h"
#include "server/config.h"
#include "server/limits.h"

namespace headcount {
namespace {

using config::v1::ModelSpec;
using config::v1::ServerConfig;

using SetText = void (*)(ServerConfig&, const std::string&);

CLI::Option* AddText(CLI::App& app, ServerFlags* flags, const std::string& name,
                     SetText set, const std::string& description) {
  return app.add_option_function<std::string>(
      name,
      [flags, set](const std::string& text) {
        flags->overrides.emplace_back(
            [set, text](ServerConfig& config) { set(config, text); });
      },
      description);
}

// Notes a number of the command line, which wins over that of the file.
std::function<void(int32_t)> Override(ServerFlags* flags,
                                      void (*set)(ServerConfig&, int32_t)) {
  return [flags, set](int32_t number) {
    flags->overrides.emplace_back(
        [set, number](ServerConfig& config) { set(config, number); });
  };
}

CLI::Option* AddDrainTime(CLI::App& app, ServerFlags* flags,
                          const std::string& name, SetText set,
                          const std::string& description) {
  return AddDuration(
      app, name,
      [flags, set](absl::Duration time) {
        flags->overrides.emplace_back([set, time](ServerConfig& config) {
          set(config, absl::FormatDuration(time));
        });
      },
      description);
}

void AddModelFlags(CLI::App& app, ServerFlags* flags) {
  app.add_option("MODEL", flags->models,
                 "folder of a model in the Hugging Face layout, GGUF file (or "
                 "folder with one), or YAML file of one model; a "
                 "headcount.yaml in the folder is read");
  app.add_option("--config", flags->config_path,
                 "YAML file of the server, which can name models, too")
      ->type_name("FILE");
  app.add_option("--models-dir", flags->models_dir,
                 "folder whose folders and .gguf files are models, each of "
                 "them served under its name")
      ->type_name("DIR");
  app.add_option("--name", flags->name,
                 "name of the model; that of its folder or its YAML unless set")
      ->type_name("NAME");
  app.add_option("--mask-file", flags->mask_file,
                 "heads of the model to leave out, format heads/1")
      ->type_name("FILE");
  AddChoice(
      app, "--precision", {"fast", "exact"},
      [flags](const std::string& precision) {
        flags->overrides.emplace_back([precision](ServerConfig& config) {
          for (ModelSpec& spec : *config.mutable_models()) {
            if (!IsVariant(spec)) spec.set_precision(precision);
            if (precision != "exact") continue;
            spec.mutable_kv_cache()->set_dtype("f32");
            spec.mutable_kv_cache()->clear_heads();
          }
        });
      },
      "of all models; exact computes and caches in float32")
      ->default_str("fast");
}

void AddAddressFlags(CLI::App& app, ServerFlags* flags) {
  const ServerConfig defaults = DefaultServerConfig();
  AddText(
      app, flags, "--listen",
      [](ServerConfig& c, const std::string& v) { c.set_listen(v); },
      "where gRPC is served; port 0: any free one")
      ->type_name("HOST:PORT")
      ->default_str(defaults.listen());
  AddText(
      app, flags, "--metrics-listen",
      [](ServerConfig& c, const std::string& v) { c.set_metrics_listen(v); },
      "where /metrics is served over HTTP")
      ->type_name("HOST:PORT")
      ->default_str(defaults.metrics_listen());
  AddChoice(
      app, "--log-format", {"text", "json"},
      [flags](const std::string& format) {
        flags->overrides.emplace_back(
            [format](ServerConfig& c) { c.set_log_format(format); });
      },
      "of the log on stderr")
      ->default_str(defaults.log_format());
}

void AddServiceFlags(CLI::App& app, ServerFlags* flags) {
  app.add_flag_callback(
      "--calibration",
      [flags] {
        flags->overrides.emplace_back(
            [](ServerConfig& c) { c.set_calibration("on"); });
      },
      "serve the CalibrationService, which `prune` needs: it shows what a "
      "model computes inside and costs far more than inference");
}

void AddResourceFlags(CLI::App& app, ServerFlags* flags) {
  const ServerConfig defaults = DefaultServerConfig();
  AddText(
      app, flags, "--kv-pool",
      [](ServerConfig& c, const std::string& v) { c.set_kv_pool(v); },
      "memory for KV caches, shared by all models: 24GiB, or 90% of the "
      "device's that is free once they are loaded")
      ->type_name("SIZE")
      ->check([](const std::string& text) {
        if (absl::EndsWith(text, "%")) return std::string();
        return std::string(ParseByteSize(text).status().message());
      })
      ->default_str(defaults.kv_pool());
  AddText(
      app, flags, "--device",
      [](ServerConfig& c, const std::string& v) { c.set_device(v); },
      "where models run: cpu, cuda, cuda:1, or auto: a GPU where this build "
      "can use one")
      ->type_name("DEVICE")
      ->default_str(defaults.device());
  AddNumber<int32_t>(
      app, "--threads",
      Override(flags, [](ServerConfig& c, int32_t n) { c.set_threads(n); }),
      {0, kMaxThreads},
      "threads that compute, or pack weights for a GPU; 0: one for each core")
      ->default_str(absl::StrCat(defaults.threads()));
  AddNumber<int32_t>(
      app, "--step-tokens",
      Override(flags, [](ServerConfig& c, int32_t n) { c.set_step_tokens(n); }),
      {1, kMaxStepTokens},
      "tokens that one step may compute: more for throughput, fewer for "
      "even latency")
      ->default_str(absl::StrCat(defaults.step_tokens()));
  AddNumber<int32_t>(
      app, "--max-queue",
      Override(flags, [](ServerConfig& c,
                         int32_t n) { c.mutable_queue()->set_requests(n); }),
      {1, kMaxQueuedRequests}, "requests that may wait; more are refused")
      ->default_str(absl::StrCat(defaults.queue().requests()));
  AddDrainTime(
      app, flags, "--drain-grace",
      [](ServerConfig& c, const std::string& v) {
        c.mutable_drain()->set_grace(v);
      },
      "how long requests are accepted after SIGTERM")
      ->default_str(defaults.drain().grace());
  AddDrainTime(
      app, flags, "--drain-deadline",
      [](ServerConfig& c, const std::string& v) {
        c.mutable_drain()->set_deadline(v);
      },
      "how long running requests may take after that")
      ->default_str(defaults.drain().deadline());
}

// A MODEL of the command line, which --name and --mask-file are for.
absl::StatusOr<ModelSpec> ReadNamedModel(const std::string& path,
                                         const ServerFlags& flags,
                                         PathKeys* keys) {
  absl::StatusOr<ModelSpec> spec = ReadModelSpec(path, keys);
  if (!spec.ok()) return spec.status();
  if (!flags.name.empty()) spec->set_name(flags.name);
  if (flags.mask_file.empty()) return spec;
  if (absl::Status status = CheckExists(flags.mask_file); !status.ok()) {
    return absl::NotFoundError(absl::StrCat("--mask-file: ", status.message()));
  }
  spec->mutable_heads()->set_mask_file(flags.mask_file);
  return spec;
}

}  // namespace

void AddServerFlags(CLI::App& app, ServerFlags* flags) {
  AddModelFlags(app, flags);
  AddAddressFlags(app, flags);
  AddServiceFlags(app, flags);
  AddResourceFlags(app, flags);
  app.parse_complete_callback([flags] {
    if (flags->models.empty() && flags->config_path.empty() &&
        flags->models_dir.empty()) {
      throw CLI::ValidationError("MODEL",
                                 "name a model, --models-dir or --config");
    }
    if (flags->models.size() != 1 &&
        !(flags->mask_file.empty() && flags->name.empty())) {
      throw CLI::ValidationError(
          "--mask-file, --name",
          "are for one MODEL on the command line; write a --config file for "
          "more");
    }
  });
}

absl::StatusOr<ServerConfig> ReadConfiguration(const ServerFlags& flags,
                                               PathKeys* keys) {
  PathKeys of_nobody;
  if (keys == nullptr) keys = &of_nobody;
  ServerConfig config = DefaultServerConfig();
  std::vector<std::string> places;  // of the models, see ValidateServerConfig
  if (!flags.config_path.empty()) {
    absl::StatusOr<ServerConfig> file =
        ReadServerConfig(flags.config_path, keys);
    if (!file.ok()) return file.status();
    config = *std::move(file);
    for (int i = 0; i < config.models_size(); ++i) {
      places.push_back(absl::StrCat(flags.config_path, ": models[", i, "]."));
    }
  }
  for (const std::string& path : flags.models) {
    absl::StatusOr<ModelSpec> spec = ReadNamedModel(path, flags, keys);
    if (!spec.ok()) return spec.status();
    *config.add_models() = *std::move(spec);
    places.push_back(path + ": ");
  }
  if (!flags.models_dir.empty()) {
    config.set_models_dir(flags.models_dir);
    (*keys)[flags.models_dir] = "--models-dir";
  }
  if (absl::Status status = AddModelsOfFolder(&config, keys); !status.ok()) {
    return status;
  }
  for (int i = static_cast<int>(places.size()); i < config.models_size(); ++i) {
    places.push_back(absl::StrCat("model '", config.models(i).name(), "': "));
  }
  for (const auto& set : flags.overrides) set(config);
  absl::Status status = ValidateServerConfig(config, places);
  if (!status.ok()) return status;
  return config;
}

}  // namespace headcount
