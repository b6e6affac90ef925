#include "server/config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/human.h"
#include "format/gguf.h"
#include "server/config_paths.h"
#include "server/limits.h"
#include "server/yaml_message.h"
#include "server/yaml_tree.h"

namespace headcount {
namespace {

namespace fs = std::filesystem;
using config::v1::ModelSpec;
using config::v1::ServerConfig;

constexpr char kModelFile[] = "headcount.yaml";

bool IsFile(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool IsFolder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

absl::Status FillFromFile(const std::string& path,
                          google::protobuf::Message* message) {
  std::ifstream file(path, std::ios::binary);
  if (!IsFile(path) || !file) {
    return absl::NotFoundError(
        absl::StrCat(path, ": there is no such file, or it cannot be read"));
  }
  // One byte over the limit is enough for ParseYaml to refuse it.
  std::string text(static_cast<size_t>(kMaxYamlBytes) + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  const absl::StatusOr<YamlNode> tree = ParseYaml(text, path);
  if (!tree.ok()) return tree.status();
  return FillMessage(*tree, path, message);
}

// The whole of a model in one file, which is no YAML.
bool IsGguf(const fs::path& path) { return path.extension() == ".gguf"; }

// `path` as seen from the folder of the file that names it.
std::string FromFileOf(const std::string& yaml_path, const std::string& path) {
  if (path.empty()) return path;
  return (fs::path(yaml_path).parent_path() / path).lexically_normal().string();
}

// `where` stands before the keys of `spec` in errors.
void ResolvePaths(const std::string& yaml_path, const std::string& where,
                  ModelSpec* spec, PathKeys* keys) {
  const auto resolve = [&](const char* key, std::string* path) {
    *path = FromFileOf(yaml_path, *path);
    if (keys != nullptr) keys->emplace(*path, where + key);
  };
  if (spec->has_source()) {
    resolve("source.path", spec->mutable_source()->mutable_path());
  }
  if (spec->has_heads()) {
    resolve("heads.mask_file", spec->mutable_heads()->mutable_mask_file());
  }
}

// A headcount.yaml or a file like it; without `source` it lies beside the
// weights.
absl::StatusOr<ModelSpec> ReadModelFile(const std::string& yaml_path,
                                        PathKeys* keys) {
  ModelSpec spec;
  const absl::Status status = FillFromFile(yaml_path, &spec);
  if (!status.ok()) return status;
  ResolvePaths(yaml_path, yaml_path + ": ", &spec, keys);
  if (!spec.has_source()) {
    const fs::path folder = fs::path(yaml_path).parent_path();
    spec.mutable_source()->set_path(folder.empty() ? "." : folder.string());
  }
  return spec;
}

// Whether an entry of models_dir is meant to be one.
bool LooksLikeAModel(const fs::path& path) {
  if (IsFile(path / kModelFile) || IsFile(path / "config.json")) return true;
  const absl::StatusOr<std::optional<std::string>> gguf =
      FindGguf(path.string());
  if (!gguf.ok()) return true;  // reading it says what is wrong
  return gguf->has_value() && IsFile(**gguf);
}

// Each key of `over` replaces that of `base` as a whole.
ModelSpec Overlay(ModelSpec base, const ModelSpec& over) {
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  over.GetReflection()->ListFields(over, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    base.GetReflection()->ClearField(&base, field);
  }
  base.MergeFrom(over);
  return base;
}

// Not for a variant: it has no folder to be named after, and what else it
// leaves out is its base's to say.
void SetDefaults(ModelSpec* spec) {
  if (spec->name().empty()) {
    // "models/x/" ends in an empty file name.
    fs::path weights = fs::absolute(spec->source().path()).lexically_normal();
    if (!weights.has_filename()) weights = weights.parent_path();
    spec->set_name(
        (IsGguf(weights) ? weights.stem() : weights.filename()).string());
  }
  if (spec->precision().empty()) spec->set_precision("fast");
  if (spec->preload().empty()) spec->set_preload("on");
  if (spec->kv_cache().dtype().empty()) {
    spec->mutable_kv_cache()->set_dtype(spec->precision() == "exact" ? "f32"
                                                                     : "f16");
  }
}

// `status`, which begins with a key, with `where` right before that.
absl::Status At(const std::string& where, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(where, status.message()));
}

// Adds what a headcount.yaml beside the weights says, then the defaults, and
// validates. `where` stands before the keys of `spec` in errors.
absl::StatusOr<ModelSpec> Complete(ModelSpec spec, const std::string& where,
                                   PathKeys* keys) {
  const std::string& folder = spec.source().path();
  if (folder.empty() && !IsVariant(spec)) {
    return At(where,
              absl::InvalidArgumentError(
                  "source.path: missing; the folder of the weights, or a .gguf "
                  "file; or source.variant_of, the model whose weights these "
                  "are"));
  }
  const fs::path beside = fs::path(folder) / kModelFile;
  if (!folder.empty() && IsFile(beside)) {
    absl::StatusOr<ModelSpec> base = ReadModelFile(beside.string(), keys);
    if (!base.ok()) return base.status();
    spec = Overlay(*std::move(base), spec);
  }
  if (!IsVariant(spec)) SetDefaults(&spec);
  const absl::Status status = ValidateModelSpec(spec);
  if (!status.ok()) return At(where, status);
  return spec;
}

}  // namespace

ServerConfig DefaultServerConfig() {
  ServerConfig config;
  config.set_listen("127.0.0.1:50051");
  config.set_metrics_listen("127.0.0.1:9464");
  config.set_kv_pool("1GiB");
  config.set_step_tokens(256);
  config.set_threads(0);
  config.set_device("auto");
  config.mutable_queue()->set_requests(1024);
  config.mutable_queue()->set_tokens(0);
  config.mutable_queue()->set_bytes("64MiB");
  config.set_prefix_cache("on");
  config.set_admin("local");
  config.set_calibration("off");
  config.set_watermark(0.01);
  config.mutable_drain()->set_grace("5s");
  config.mutable_drain()->set_deadline("30s");
  config.set_log_format("text");
  return config;
}

absl::StatusOr<ServerConfig> ReadServerConfig(const std::string& yaml_path,
                                              PathKeys* keys) {
  ServerConfig config = DefaultServerConfig();
  absl::Status status = FillFromFile(yaml_path, &config);
  if (!status.ok()) return status;
  status = ValidateServerKeys(config);
  if (!status.ok()) return At(yaml_path + ": ", status);
  for (int i = 0; i < config.models_size(); ++i) {
    ModelSpec* entry = config.mutable_models(i);
    const std::string where = absl::StrCat(yaml_path, ": models[", i, "].");
    ResolvePaths(yaml_path, where, entry, keys);
    absl::StatusOr<ModelSpec> spec = Complete(std::move(*entry), where, keys);
    if (!spec.ok()) return spec.status();
    *entry = *std::move(spec);
  }
  config.set_models_dir(FromFileOf(yaml_path, config.models_dir()));
  if (keys != nullptr) {
    keys->emplace(config.models_dir(), yaml_path + ": models_dir");
  }
  return config;
}

absl::Status AddModelsOfFolder(ServerConfig* config, PathKeys* keys) {
  if (config->models_dir().empty()) return absl::OkStatus();
  const std::string key = KeyOf(config->models_dir(), "models_dir",
                                keys == nullptr ? PathKeys() : *keys);
  std::error_code error;
  std::vector<std::string> paths;
  for (fs::directory_iterator entry(config->models_dir(), error), end;
       !error && entry != end; entry.increment(error)) {
    if (LooksLikeAModel(entry->path())) paths.push_back(entry->path().string());
  }
  if (error) {
    return absl::NotFoundError(
        absl::StrCat(key, ": ", config->models_dir(), ": ", error.message()));
  }
  if (paths.size() > static_cast<size_t>(kMaxFolderModels)) {
    return absl::InvalidArgumentError(
        absl::StrCat(key, ": ", config->models_dir(), " has ", paths.size(),
                     " models; at most ", kMaxFolderModels));
  }
  std::sort(paths.begin(), paths.end());
  std::set<std::string> elsewhere;
  for (const ModelSpec& spec : config->models()) elsewhere.insert(spec.name());
  // That two of them have one name is found by ValidateServerConfig.
  for (const std::string& path : paths) {
    absl::StatusOr<ModelSpec> spec = ReadModelSpec(path, keys);
    if (!spec.ok()) return spec.status();
    if (elsewhere.count(spec->name()) > 0) continue;
    *config->add_models() = *std::move(spec);
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelSpec> ReadModelSpec(const std::string& path,
                                        PathKeys* keys) {
  std::string file = path;
  ModelSpec named;
  if (IsFolder(path)) {
    file = (fs::path(path) / kModelFile).string();
    named.mutable_source()->set_path(path);
  } else if (!IsFile(path)) {
    return absl::NotFoundError(absl::StrCat(
        path,
        ": there is neither a folder of weights nor a GGUF or YAML file"));
  } else if (IsGguf(path)) {
    named.mutable_source()->set_path(path);
  } else if (fs::path(path).extension() == ".safetensors") {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": only the weights of a model: name the folder that also has "
        "its config.json and tokenizer.json"));
  }
  if (IsFile(file) && !IsGguf(file)) {
    absl::StatusOr<ModelSpec> read = ReadModelFile(file, keys);
    if (!read.ok()) return read.status();
    named = *std::move(read);
  }
  return Complete(std::move(named), file + ": ", keys);
}

std::optional<double> PoolShareOf(const ServerConfig& config) {
  absl::string_view digits = config.kv_pool();
  double percent = 0;
  if (!absl::ConsumeSuffix(&digits, "%") ||
      !absl::SimpleAtod(digits, &percent)) {
    return std::nullopt;
  }
  return percent / 100;
}

EngineOptions EngineOptionsOf(const ServerConfig& config) {
  const absl::StatusOr<int64_t> pool =
      PoolShareOf(config) ? int64_t{0} : ParseByteSize(config.kv_pool());
  CHECK(pool.ok()) << "not validated: " << pool.status();
  const absl::StatusOr<int64_t> queue = ParseByteSize(config.queue().bytes());
  CHECK(queue.ok()) << "not validated: " << queue.status();
  return {.kv_pool_bytes = *pool,
          .step_tokens = config.step_tokens(),
          .max_queued_requests = config.queue().requests(),
          .max_queued_tokens = config.queue().tokens(),
          .max_queued_bytes = *queue,
          .watermark = config.watermark(),
          .prefix_cache = config.prefix_cache() == "on"};
}

PoolQuota QuotaOf(const ModelSpec& spec) {
  const auto bytes = [](const std::string& text) {
    return text.empty() ? int64_t{0} : *ParseByteSize(text);
  };
  const config::v1::Quota& quota = spec.kv_cache().quota();
  return {.floor_bytes = bytes(quota.min()),
          .ceiling_bytes = bytes(quota.max())};
}

double ShareOf(const ModelSpec& spec) {
  return spec.share() == 0 ? 1.0 : spec.share();
}

HeadMask HeadMaskOf(const ModelSpec& spec) {
  HeadMask mask;
  for (const auto& [layer, list] : spec.heads().pruned()) {
    for (const std::string& range : list.ranges()) {
      const absl::Status status = ParseHeadRange(range, &mask.pruned[layer]);
      CHECK(status.ok()) << "not validated: " << status;
    }
  }
  return mask;
}

bool IsVariant(const ModelSpec& spec) {
  return !spec.source().variant_of().empty();
}

KvDtype KvDtypeOf(const ModelSpec& spec) {
  const absl::StatusOr<KvDtype> dtype = ParseKvDtype(spec.kv_cache().dtype());
  CHECK(dtype.ok()) << "not validated: " << dtype.status();
  return *dtype;
}

KvHeadRules KvHeadRulesOf(const ModelSpec& spec) {
  KvHeadRules rules;
  for (const config::v1::KvHeads& entry : spec.kv_cache().heads()) {
    KvHeadRule rule;
    if (!entry.dtype().empty()) {
      const absl::StatusOr<KvDtype> dtype = ParseKvDtype(entry.dtype());
      CHECK(dtype.ok()) << "not validated: " << dtype.status();
      rule.dtype = *dtype;
    }
    if (entry.has_streaming()) {
      rule.retention = Retention{.window = entry.streaming().recent(),
                                 .sink = entry.streaming().sink()};
    }
    std::set<int> heads;
    for (const std::string& range : entry.kv_heads()) {
      const absl::Status status = ParseHeadRange(range, &heads);
      CHECK(status.ok()) << "not validated: " << status;
    }
    for (const int head : heads) rules[entry.layer()][head] = rule;
  }
  return rules;
}

std::optional<Admin> ParseAdmin(absl::string_view text) {
  if (text == "local") return Admin::kLocal;
  if (text == "any") return Admin::kAny;
  if (text == "off") return Admin::kOff;
  return std::nullopt;
}

Admin AdminOf(const ServerConfig& config) {
  const std::optional<Admin> admin = ParseAdmin(config.admin());
  CHECK(admin.has_value()) << "not validated: " << config.admin();
  return *admin;
}

absl::Duration DrainGraceOf(const ServerConfig& config) {
  const absl::StatusOr<absl::Duration> grace =
      ParseDuration(config.drain().grace());
  CHECK(grace.ok()) << "not validated: " << grace.status();
  return *grace;
}

absl::Duration DrainDeadlineOf(const ServerConfig& config) {
  const absl::StatusOr<absl::Duration> deadline =
      ParseDuration(config.drain().deadline());
  CHECK(deadline.ok()) << "not validated: " << deadline.status();
  return *deadline;
}

}  // namespace headcount
