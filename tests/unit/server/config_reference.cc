#include "config_reference.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/human.h"
#include "server/config.h"
#include "server/limits.h"
#include "temporary_folder.h"

namespace headcount {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr char kModels[] = "models[].";
constexpr double kAny = INT32_MAX;

// As a person writes it: 65536, 0.5.
std::string NumberText(double number) {
  const auto whole = static_cast<int64_t>(number);
  return static_cast<double>(whole) == number ? absl::StrCat(whole)
                                              : absl::StrCat(number);
}

std::string ValuesText(const KeyValues& values) {
  if (!values.choices.empty()) {
    return absl::StrCat("`", absl::StrJoin(values.choices, "`, `"), "`");
  }
  if (values.longest) {
    return absl::StrCat("duration, at most ",
                        absl::FormatDuration(*values.longest));
  }
  if (!values.range) return values.text;
  const auto [least, most] = *values.range;
  return most == kAny
             ? absl::StrCat("from ", NumberText(least), " on")
             : absl::StrCat(NumberText(least), " to ", NumberText(most));
}

// The comment above the field, in one line.
std::string Comment(const FieldDescriptor& field) {
  google::protobuf::SourceLocation location;
  CHECK(field.GetSourceLocation(&location)) << field.full_name();
  const std::vector<std::string> words = absl::StrSplit(
      location.leading_comments, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  return absl::StrReplaceAll(absl::StrJoin(words, " "), {{"|", "\\|"}});
}

// What the message has at `path`; empty where there is nothing to be shown: in
// lists, and where a text or a message is not set.
std::string ValueAt(const Message& root, const std::string& path) {
  const Message* message = &root;
  const std::vector<std::string> names = absl::StrSplit(path, '.');
  for (size_t i = 0; i < names.size(); ++i) {
    const FieldDescriptor* field =
        message->GetDescriptor()->FindFieldByName(names[i]);
    if (field == nullptr || field->is_repeated()) return "";  // "heads[]"
    const auto& reflection = *message->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        message = &reflection.GetMessage(*message, field);
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection.GetString(*message, field);
      case FieldDescriptor::CPPTYPE_INT32:
        return absl::StrCat(reflection.GetInt32(*message, field));
      case FieldDescriptor::CPPTYPE_INT64:
        return absl::StrCat(reflection.GetInt64(*message, field));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return absl::StrCat(reflection.GetDouble(*message, field));
      default:
        CHECK(false) << field->full_name();
    }
  }
  return "";
}

// A model of which nothing is said.
config::v1::ModelSpec DefaultModel() {
  const TemporaryFolder folder;
  absl::StatusOr<config::v1::ModelSpec> spec =
      ReadModelSpec(folder.path().string());
  CHECK(spec.ok()) << spec.status();
  spec->set_share(ShareOf(*spec));
  // Of this folder only.
  spec->clear_name();
  spec->clear_source();
  return *std::move(spec);
}

std::string Row(const std::string& key, const ConfigKey& place,
                const Message& defaults) {
  const auto values = ConfigKeyValues().find(place.path);
  CHECK(values != ConfigKeyValues().end()) << place.path;
  const std::string value = ValueAt(defaults, key);
  return absl::StrCat("| `", key, "` | ", ValuesText(values->second), " | ",
                      value.empty() ? "" : absl::StrCat("`", value, "`"), " | ",
                      Comment(*place.field), " |\n");
}

void AddKeys(const Descriptor& message, const std::string& prefix,
             std::vector<ConfigKey>* keys) {
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor* field = message.field(i);
    const std::string path = prefix + field->name();
    keys->push_back({path, field});
    if (field->is_map() || field->message_type() == nullptr) continue;
    AddKeys(*field->message_type(), path + (field->is_repeated() ? "[]." : "."),
            keys);
  }
}

std::map<std::string, KeyValues> ServerValues() {
  return {
      {"listen", {.text = "host:port"}},
      {"metrics_listen", {.text = "host:port"}},
      {"kv_pool", {.text = "size, or a share up to `98%`"}},
      {"step_tokens", {.range = {{1, kMaxStepTokens}}}},
      {"threads", {.range = {{0, kMaxThreads}}}},
      {"queue", {.text = "map"}},
      {"queue.requests", {.range = {{1, kMaxQueuedRequests}}}},
      {"queue.tokens", {.range = {{0, kAny}}}},
      {"queue.bytes", {.text = "size"}},
      {"watermark", {.range = {{0, kMaxWatermark}}}},
      {"drain", {.text = "map"}},
      {"drain.grace", {.longest = kMaxDrainGrace}},
      {"drain.deadline", {.longest = kMaxDrainDeadline}},
      {"log_format", {.choices = {"text", "json"}}},
      {"models", {.text = "list of maps, see below"}},
      {"models_dir", {.text = "path"}},
      {"prefix_cache", {.choices = {"on", "off"}}},
      {"admin", {.choices = {"local", "any", "off"}}},
      {"calibration", {.choices = {"off", "on"}}},
      {"device", {.choices = {"auto", "cpu", "cuda", "cuda:1"}}},
  };
}

std::map<std::string, KeyValues> ModelValues() {
  return {
      {"models[].name",
       {.text = absl::StrCat("up to ", kMaxModelNameBytes,
                             " letters, digits and `._-`")}},
      {"models[].source", {.text = "map"}},
      {"models[].source.path", {.text = "path"}},
      {"models[].source.variant_of", {.text = "name of a model"}},
      {"models[].heads", {.text = "map"}},
      {"models[].heads.pruned", {.text = "map of lists"}},
      {"models[].heads.mask_file", {.text = "path"}},
      {"models[].kv_cache", {.text = "map"}},
      {"models[].kv_cache.dtype",
       {.choices = {"f32", "f16", "bf16", "fp8_e4m3", "int8", "int4"}}},
      {"models[].kv_cache.quota", {.text = "map"}},
      {"models[].kv_cache.quota.min", {.text = "size"}},
      {"models[].kv_cache.quota.max", {.text = "size"}},
      {"models[].kv_cache.heads", {.text = "list of maps"}},
      {"models[].kv_cache.heads[].layer", {.range = {{0, kAny}}}},
      {"models[].kv_cache.heads[].kv_heads",
       {.text = "list, such as `[0, 2-3]`"}},
      {"models[].kv_cache.heads[].dtype", {.text = "as `kv_cache.dtype`"}},
      {"models[].kv_cache.heads[].streaming", {.text = "map"}},
      {"models[].kv_cache.heads[].streaming.sink", {.range = {{0, kAny}}}},
      {"models[].kv_cache.heads[].streaming.recent", {.range = {{1, kAny}}}},
      {"models[].limits", {.text = "map"}},
      {"models[].limits.max_context", {.range = {{0, kAny}}}},
      {"models[].limits.max_concurrent", {.range = {{0, kAny}}}},
      {"models[].precision", {.choices = {"fast", "exact"}}},
      {"models[].classify", {.text = "map"}},
      {"models[].classify.template",
       {.text =
            absl::StrCat("text, up to ", FormatByteSize(kMaxTemplateBytes))}},
      {"models[].classify.labels",
       {.text = absl::StrCat("list of 2 to ", kMaxLabels, " texts, up to ",
                             kMaxLabelBytes, " bytes each")}},
      {"models[].share", {.range = {{kMinShare, kMaxShare}}}},
      {"models[].preload", {.choices = {"on", "off"}}},
  };
}

}  // namespace

const std::map<std::string, KeyValues>& ConfigKeyValues() {
  static const auto* const kValues = [] {
    auto* const values = new std::map(ServerValues());
    values->merge(ModelValues());
    return values;
  }();
  return *kValues;
}

std::vector<ConfigKey> ConfigKeys(const Descriptor& message) {
  std::vector<ConfigKey> keys;
  AddKeys(message, "", &keys);
  return keys;
}

std::string ConfigMarkdown(const Descriptor& server) {
  const config::v1::ServerConfig server_defaults = DefaultServerConfig();
  const config::v1::ModelSpec model_defaults = DefaultModel();
  const std::string head =
      "| Key | Takes | Default | What it says |\n|---|---|---|---|\n";
  std::string servers;
  std::string models;
  for (const ConfigKey& key : ConfigKeys(server)) {
    absl::string_view of_model = key.path;
    if (absl::ConsumePrefix(&of_model, kModels)) {
      models += Row(std::string(of_model), key, model_defaults);
    } else {
      servers += Row(key.path, key, server_defaults);
    }
  }
  return absl::StrCat(
      "# Configuration\n\n"
      "The keys of the YAML that `headcount serve --config server.yaml` reads, "
      "and of a\n`headcount.yaml` beside the weights of a model. `headcount "
      "check --config` says\nwhat is wrong with a file. Made from "
      "`proto/headcount/config/v1/config.proto`; a\ntest compares the two.\n\n"
      "A key that is not here is an error. `queue.requests` is key `requests` "
      "of map\n`queue`, and `heads[]` an entry of list `heads`. A size is "
      "`64MiB` or `24GiB`, a\nduration `250ms` or `30s`. A relative path is "
      "relative to the file that names it.\nA flag wins over the environment, "
      "and that over the file: see [commands](cli.md).\n\n"
      "## The server\n\n",
      head, servers,
      "\n## A model\n\n"
      "An entry of `models`, or a `headcount.yaml`, which lies beside the "
      "weights and\nneeds no `source` then. Where there are both, a key of the "
      "entry wins as a whole\nover that of the file.\n\n",
      head, models);
}

}  // namespace headcount
