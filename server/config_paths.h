// The files and folders that a configuration names, and where it does so.
//
//   PathKeys keys;
//   absl::StatusOr<ServerConfig> config = ReadServerConfig(yaml, &keys);
//   absl::Status status = CheckPaths(config->models(0), keys);
//   // server.yaml: models[0].source.path: nosuch does not exist (...)
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "headcount/config/v1/config.pb.h"

namespace headcount {

// NotFound, with the path, where there is nothing or it cannot be seen.
absl::Status CheckExists(const std::string& path);

// The file and key that name a path, such as "server.yaml: models_dir", by the
// path as the configuration has it; of several, the first.
using PathKeys = std::map<std::string, std::string>;

// What names `path`; `key` where `keys` does not know it.
std::string KeyOf(const std::string& path, absl::string_view key,
                  const PathKeys& keys);

// NotFound for a path of the model at which there is nothing. Not a part of
// validation: a model that is loaded later may come later.
absl::Status CheckPaths(const config::v1::ModelSpec& spec,
                        const PathKeys& keys = {});

}  // namespace headcount
