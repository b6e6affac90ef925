#include "export/export.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "backend/backend.h"
#include "export/gguf_target.h"
#include "export/gguf_tokenizer_keys.h"
#include "export/sliced_config.h"
#include "export/tensor_plan.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/output_file.h"
#include "format/write_gguf.h"
#include "format/write_safetensors.h"
#include "model/at_path.h"
#include "model/rope.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

namespace fs = std::filesystem;

using NamedTexts = std::vector<std::pair<std::string, std::string>>;

// Beside the weights of a Hugging Face directory, and not about their heads.
constexpr const char* kCopied[] = {"generation_config.json",
                                   "tokenizer.json",
                                   "tokenizer_config.json",
                                   "tokenizer.model",
                                   "vocab.json",
                                   "merges.txt",
                                   "added_tokens.json",
                                   "special_tokens_map.json",
                                   "chat_template.jinja"};

absl::Status SystemError(const std::string& what,
                         const std::error_code& error) {
  return absl::UnknownError(absl::StrCat(what, ": ", error.message()));
}

absl::Status CheckOut(const ExportOptions& options,
                      const std::optional<std::string>& source_gguf) {
  const fs::path out(options.out);
  std::error_code error;
  const bool gguf = options.format == ExportFormat::kGguf;
  if (gguf != (out.extension() == ".gguf")) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.out, gguf ? ": a GGUF file is named *.gguf"
                          : ": a folder of safetensors is not named *.gguf"));
  }
  if (!fs::exists(out, error)) return absl::OkStatus();
  if (fs::equivalent(out, source_gguf.value_or(options.source.path), error)) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.out, ": is the model itself; name another place"));
  }
  if (fs::is_directory(out, error) == gguf) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.out, gguf ? ": is a folder; name a file" : ": is no folder"));
  }
  if (options.force) return absl::OkStatus();
  return absl::AlreadyExistsError(
      absl::StrCat(options.out, ": is there already; --force writes over it"));
}

ExportReport ReportOf(const PrunedCheckpoint& source) {
  const HeadLayout& layout = source.layout;
  const int64_t kv_bytes = 2 * KvRowBytes(layout.head_dim(), KvDtype::kF16);
  ExportReport report;
  report.query_heads[0] = layout.dense_query_heads();
  report.query_heads[1] = layout.query_heads();
  report.kv_heads[0] = layout.dense_kv_heads();
  report.kv_heads[1] = layout.kv_heads();
  report.kv_bytes_per_token[0] = layout.dense_kv_heads() * kv_bytes;
  report.kv_bytes_per_token[1] = layout.kv_heads() * kv_bytes;
  report.weight_bytes[0] = source.checkpoint.tensor_bytes();
  return report;
}

absl::Status CopyBeside(const fs::path& from, const fs::path& to) {
  for (const char* name : kCopied) {
    std::error_code error;
    if (!fs::is_regular_file(from / name, error)) continue;
    fs::copy_file(from / name, to / name, error);
    if (error) return SystemError(absl::StrCat("cannot copy ", name), error);
  }
  return absl::OkStatus();
}

absl::Status WriteText(const fs::path& path, const std::string& text) {
  absl::StatusOr<OutputFile> file = OutputFile::Create(path.string());
  if (!file.ok()) return file.status();
  absl::Status status = file->Append(text);
  if (status.ok()) status = file->Commit();
  return status;
}

// A folder that becomes `path`, or is gone with the object.
class PartialFolder {
 public:
  explicit PartialFolder(const std::string& path)
      : path_(fs::path(path).lexically_normal()),
        partial_(absl::StrCat(WithoutSlash(path_), ".partial-", getpid())) {}
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;
  ~PartialFolder() {
    std::error_code ignored;
    fs::remove_all(partial_, ignored);
  }

  const fs::path& partial() const { return partial_; }

  absl::Status Create() {
    std::error_code error;
    fs::remove_all(partial_, error);
    if (!fs::create_directory(partial_, error)) {
      return SystemError(absl::StrCat("cannot make ", path_.string()), error);
    }
    return absl::OkStatus();
  }

  // What is in a folder of that name and has another name stays.
  absl::Status Commit() {
    std::error_code error;
    if (!fs::exists(path_, error)) {
      fs::rename(partial_, WithoutSlash(path_), error);
      if (error) return SystemError("cannot write " + path_.string(), error);
      return absl::OkStatus();
    }
    for (const fs::directory_entry& entry :
         fs::directory_iterator(partial_, error)) {
      fs::rename(entry.path(), path_ / entry.path().filename(), error);
      if (error) break;
    }
    if (error) return SystemError("cannot write " + path_.string(), error);
    return absl::OkStatus();
  }

 private:
  static std::string WithoutSlash(const fs::path& path) {
    return (path.has_filename() ? path : path.parent_path()).string();
  }

  const fs::path path_;
  const fs::path partial_;
};

absl::StatusOr<ExportReport> ExportFolder(const ExportOptions& options,
                                          const PrunedCheckpoint& source) {
  const fs::path from(options.source.path);
  const absl::StatusOr<nlohmann::json> json =
      ReadJsonFile((from / "config.json").string());
  if (!json.ok()) return json.status();
  const bool add_biases = RepairAddsBias(source);
  const absl::StatusOr<nlohmann::json> config =
      SlicedConfig(*json, source.config, source.layout, add_biases);
  if (!config.ok()) return config.status();
  absl::StatusOr<TensorPlan> plan =
      PlanTensors(source, {.out_bias = add_biases, .qkv_bias = add_biases});
  if (!plan.ok()) return AtPath(options.source.path, plan.status());
  NamedTexts more;
  if (options.more_files) {
    absl::StatusOr<NamedTexts> made = options.more_files(source.layout);
    if (!made.ok()) return made.status();
    more = *std::move(made);
  }
  more.emplace_back("config.json", absl::StrCat(config->dump(2), "\n"));

  ExportReport report = ReportOf(source);
  report.architecture = source.config.architecture;
  PartialFolder folder(options.out);
  absl::Status status = folder.Create();
  if (status.ok()) status = CopyBeside(from, folder.partial());
  for (const auto& [name, text] : more) {
    if (status.ok()) status = WriteText(folder.partial() / name, text);
  }
  if (status.ok()) {
    status = WriteSafetensors((folder.partial() / "model.safetensors").string(),
                              plan->tensors, options.progress);
  }
  if (status.ok()) status = folder.Commit();
  if (!status.ok()) return status;
  report.weight_bytes[1] = *BytesOf(plan->tensors);
  report.notes = std::move(plan->notes);
  return report;
}

// The rule of llama3 as a tensor: what each pair's frequency is divided by.
TensorToWrite RopeDivisors(const RopeConfig& rope, int head_dim) {
  RopeConfig plain;
  plain.theta = rope.theta;
  const std::vector<float> from = MakeRope(plain, head_dim).inverse_frequency;
  std::vector<float> divisors = MakeRope(rope, head_dim).inverse_frequency;
  for (size_t i = 0; i < divisors.size(); ++i)
    divisors[i] = from[i] / divisors[i];
  return {.name = "rope_freqs.weight",
          .dtype = ElementType::kF32,
          .shape = {static_cast<int64_t>(divisors.size())},
          .read = [divisors](int64_t first, int64_t count, std::byte* out) {
            std::memcpy(out, divisors.data() + first,
                        static_cast<size_t>(count) * sizeof(float));
          }};
}

absl::StatusOr<GgufKeys> GgufKeysOf(const ExportOptions& options,
                                    const PrunedCheckpoint& source,
                                    const std::optional<std::string>& gguf,
                                    const std::string& architecture) {
  if (gguf) {
    const absl::StatusOr<GgufFile> file = OpenGguf(*gguf);
    if (!file.ok()) return file.status();
    return KeysFrom(file->metadata, source, architecture);
  }
  absl::StatusOr<GgufKeys> keys = KeysOf(source, architecture);
  if (!keys.ok()) return keys.status();
  keys->SetString("general.name", fs::path(options.out).stem().string());
  const absl::Status status =
      AddTokenizerKeys(options.source.path, source.config, &*keys);
  if (!status.ok()) return status;
  return keys;
}

absl::StatusOr<ExportReport> ExportGguf(
    const ExportOptions& options, const PrunedCheckpoint& source,
    const std::optional<std::string>& gguf) {
  absl::StatusOr<std::string> architecture = GgufArchitectureOf(source);
  if (!architecture.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "GGUF cannot say it: ", std::string(architecture.status().message()),
        gguf ? "; serve the model with the mask instead"
             : "; --format safetensors can"));
  }
  const absl::StatusOr<GgufKeys> keys =
      GgufKeysOf(options, source, gguf, *architecture);
  if (!keys.ok()) return keys.status();
  absl::StatusOr<TensorPlan> plan =
      PlanTensors(source, {.naming = WeightNaming::kGguf,
                           .paired_rows = HasPairedRows(*architecture),
                           .float_vectors = true,
                           .out_bias = RepairAddsBias(source)});
  if (!plan.ok()) return AtPath(options.source.path, plan.status());
  if (source.config.rope.type == RopeType::kLlama3) {
    plan->tensors.push_back(
        RopeDivisors(source.config.rope, source.config.head_dim));
  }
  const absl::Status status =
      WriteGguf(options.out, *keys, plan->tensors, options.progress);
  if (!status.ok()) return status;
  ExportReport report = ReportOf(source);
  report.architecture = *std::move(architecture);
  report.weight_bytes[1] = *BytesOf(plan->tensors);
  report.notes = std::move(plan->notes);
  return report;
}

// Whether heads keep less than the layers of the model do.
bool Streams(const HeadLayout& layout) {
  for (const LayerHeads& layer : layout.layers()) {
    for (const KvHead& head : layer.kv_heads) {
      if (head.retention != layer.dense.retention) return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<ExportReport> Export(const ExportOptions& options) {
  const absl::StatusOr<std::optional<std::string>> gguf =
      FindGguf(options.source.path);
  if (!gguf.ok()) return gguf.status();
  if (gguf->has_value() && options.format == ExportFormat::kSafetensors) {
    return absl::InvalidArgumentError(absl::StrCat(
        **gguf, ": a GGUF model is exported as GGUF; write to a file *.gguf"));
  }
  const absl::Status out = CheckOut(options, *gguf);
  if (!out.ok()) return out;
  const absl::StatusOr<PrunedCheckpoint> source = OpenPruned(options.source);
  if (!source.ok()) return source.status();
  if (Streams(source->layout)) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.source.mask_file,
        ": stream: which tokens a head keeps is not a matter of weights; leave "
        "it out, and name the heads in kv_cache.heads of the exported model's "
        "headcount.yaml"));
  }
  return options.format == ExportFormat::kGguf
             ? ExportGguf(options, *source, *gguf)
             : ExportFolder(options, *source);
}

}  // namespace headcount
