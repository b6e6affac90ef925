// What an operator writes, read and checked: YAML with the keys of
// proto/headcount/config/v1/config.proto.
//
//   config::v1::ServerConfig config = DefaultServerConfig();
//   *config.add_models() = *ReadModelSpec("models/mailroom");
//   absl::Status status = ValidateServerConfig(config);
//
// Errors are InvalidArgument (NotFound for a file that is not there) and say
// where: "server.yaml:7: models[1].heads.pruned.0: ...".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/engine.h"
#include "headcount/config/v1/config.pb.h"
#include "heads/head_layout.h"
#include "heads/head_mask.h"
#include "heads/kv_dtype.h"
#include "server/config_paths.h"

namespace headcount {

// Who may change what a server serves, and end it.
enum class Admin : uint8_t { kLocal, kAny, kOff };
// "local", "any" or "off"; nothing for another text.
std::optional<Admin> ParseAdmin(absl::string_view text);

// Every key that has a default, and no model.
config::v1::ServerConfig DefaultServerConfig();

// A server's file over DefaultServerConfig(). Each of its models is completed
// as by ReadModelSpec: a headcount.yaml beside the weights gives the keys that
// the server's file leaves out. Relative paths are relative to the file that
// names them; where each was named goes to `keys`, here and below.
absl::StatusOr<config::v1::ServerConfig> ReadServerConfig(
    const std::string& yaml_path, PathKeys* keys = nullptr);

// Adds what lies in config.models_dir, by name, and has not been added: folders
// with a headcount.yaml, a config.json or a .gguf file, and .gguf files. Does
// nothing if that is empty.
absl::Status AddModelsOfFolder(config::v1::ServerConfig* config,
                               PathKeys* keys = nullptr);

// `path` is a folder of weights, with or without a headcount.yaml, or such a
// file itself. Defaults are filled in; name, source.path, precision, preload
// and kv_cache.dtype are always set. A variant has source.variant_of instead of
// a path, and what it takes over from its base stays empty.
absl::StatusOr<config::v1::ModelSpec> ReadModelSpec(const std::string& path,
                                                    PathKeys* keys = nullptr);

// What can be told without opening a model: ranges, names (each once), sizes,
// durations, addresses, and what variants are of. At least one model. `places`
// stand before the keys of the models in errors; "models[0]." and so on where
// there are none.
absl::Status ValidateServerConfig(const config::v1::ServerConfig& config,
                                  absl::Span<const std::string> places = {});
// The same without a look at the models.
absl::Status ValidateServerKeys(const config::v1::ServerConfig& config);
absl::Status ValidateModelSpec(const config::v1::ModelSpec& spec);

// Letters, digits, '.', '_' and '-', the first one a letter or digit; at most
// kMaxModelNameBytes.
bool IsModelName(absl::string_view name);

// Whether it shares the weights of another model, source.variant_of.
bool IsVariant(const config::v1::ModelSpec& spec);

// The share that `kv_pool` is, such as 0.9 for "90%": of the device's memory
// that is free once the models are loaded. Absent: it is a size.
std::optional<double> PoolShareOf(const config::v1::ServerConfig& config);

// Parts of a valid configuration as the engine takes them. kv_pool_bytes is 0
// where it is not known yet (PoolShareOf).
EngineOptions EngineOptionsOf(const config::v1::ServerConfig& config);
HeadMask HeadMaskOf(const config::v1::ModelSpec& spec);
KvDtype KvDtypeOf(const config::v1::ModelSpec& spec);  // not of a variant
KvHeadRules KvHeadRulesOf(const config::v1::ModelSpec& spec);
PoolQuota QuotaOf(const config::v1::ModelSpec& spec);
double ShareOf(const config::v1::ModelSpec& spec);
Admin AdminOf(const config::v1::ServerConfig& config);
absl::Duration DrainGraceOf(const config::v1::ServerConfig& config);
absl::Duration DrainDeadlineOf(const config::v1::ServerConfig& config);

}  // namespace headcount
