// docs/config.md: every key of config.proto with what it takes, its default and
// its comment.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace headcount {

// What a key takes. Only one of these is set.
struct KeyValues {
  std::string text = {};                  // where no test can tell
  std::vector<std::string> choices = {};  // all that there are
  std::optional<absl::Duration> longest = {};
  std::optional<std::pair<double, double>> range = {};  // both ends included
};

// By path, such as "queue.requests" and "models[].kv_cache.heads[].layer".
const std::map<std::string, KeyValues>& ConfigKeyValues();

struct ConfigKey {
  std::string path;
  const google::protobuf::FieldDescriptor* field;
};

// Those that YAML has for `message`, in the order of its fields, each right
// before what is in it.
std::vector<ConfigKey> ConfigKeys(const google::protobuf::Descriptor& message);

// `server` is ServerConfig, from a pool that knows its comments. CHECKs that
// each key has its values.
std::string ConfigMarkdown(const google::protobuf::Descriptor& server);

}  // namespace headcount
