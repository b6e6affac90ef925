#include "format/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/mapped_file.h"
#include "format/quoted.h"
#include "format/safetensors.h"
#include "format/sha256.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

namespace fs = std::filesystem;

constexpr char kSingleFileName[] = "model.safetensors";
constexpr char kIndexFileName[] = "model.safetensors.index.json";
constexpr size_t kMaxShards = 1024;
constexpr size_t kMaxFileNameBytes = 255;  // NAME_MAX of Linux

struct Shard {
  std::unique_ptr<MappedFile> file;
  std::vector<TensorEntry> entries;  // views into `file`
};

// Tensor name -> name of the shard that holds it.
using WeightMap = std::map<std::string, std::string, std::less<>>;

absl::StatusOr<Shard> OpenShard(const std::string& path) {
  auto file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  auto entries = ParseSafetensors((*file)->bytes(), path);
  if (!entries.ok()) return entries.status();
  return Shard{*std::move(file), *std::move(entries)};
}

// The whole of a GGUF model: one of the parts that llama.cpp splits large ones
// into would lack tensors.
absl::StatusOr<Shard> OpenGgufShard(const std::string& path) {
  constexpr char kPartsKey[] = "split.count";
  absl::StatusOr<GgufFile> gguf = OpenGguf(path);
  if (!gguf.ok()) return gguf.status();
  if (gguf->metadata.Has(kPartsKey)) {
    const absl::StatusOr<int64_t> parts = gguf->metadata.Int(kPartsKey);
    if (!parts.ok()) return parts.status();
    if (*parts > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": key '", kPartsKey, "': one of ", *parts,
          " parts of a model, which is not supported: join them with "
          "llama.cpp's 'llama-gguf-split --merge'"));
    }
  }
  return Shard{std::move(gguf->file), std::move(gguf->tensors)};
}

// A shard lies beside its index, under a plain name.
bool IsShardName(std::string_view name) {
  if (name.empty() || name.size() > kMaxFileNameBytes || name[0] == '.') {
    return false;
  }
  return std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' ||
           c == '_' || c == '-';
  });
}

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  const absl::StatusOr<nlohmann::json> index = ReadJsonFile(path);
  if (!index.ok()) return index.status();
  const auto* members = index->get_ptr<const nlohmann::json::object_t*>();
  if (members == nullptr || members->count("weight_map") == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": has no field 'weight_map'"));
  }
  const auto* entries =
      members->at("weight_map").get_ptr<const nlohmann::json::object_t*>();
  if (entries == nullptr || entries->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": 'weight_map' has to name the file of at least one tensor"));
  }
  if (entries->size() > kMaxTensors) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": 'weight_map' has ", entries->size(),
                     " tensors, over the limit of ", kMaxTensors));
  }
  WeightMap weight_map;
  for (const auto& [tensor, file] : *entries) {
    const auto* name = file.get_ptr<const std::string*>();
    if (name == nullptr || !IsShardName(*name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": tensor ", Quoted(tensor), " is said to be in ",
          name == nullptr ? file.type_name() : Quoted(*name),
          ", which is not the plain name of a file in the same directory"));
    }
    weight_map.emplace(tensor, *name);
  }
  return weight_map;
}

// Where shard `name` lies, once that is known to be inside `directory`.
absl::StatusOr<std::string> FindShard(const fs::path& directory,
                                      const std::string& name) {
  std::error_code error;
  const fs::path base = fs::canonical(directory, error);
  const fs::path target =
      error ? fs::path() : fs::canonical(base / name, error);
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat((directory / kIndexFileName).string(), ": the shard ",
                     Quoted(name), " cannot be opened: ", error.message()));
  }
  if (*target.lexically_relative(base).begin() == "..") {
    return absl::InvalidArgumentError(absl::StrCat(
        (directory / kIndexFileName).string(), ": the shard ", Quoted(name),
        " is a link out of the directory: put the file itself there"));
  }
  return (directory / name).string();
}

// Each tensor in one shard, and in the one that the index says.
absl::Status CheckIndex(const WeightMap& weight_map,
                        absl::Span<const Shard> shards,
                        const std::string& index_path) {
  absl::flat_hash_map<absl::string_view, std::string> holders;
  for (const Shard& shard : shards) {
    const std::string file = fs::path(shard.file->path()).filename().string();
    for (const TensorEntry& entry : shard.entries) {
      const auto [holder, is_new] = holders.try_emplace(entry.name, file);
      if (!is_new) {
        return absl::InvalidArgumentError(
            absl::StrCat(index_path, ": tensor ", Quoted(entry.name),
                         " is in two shards, ", holder->second, " and ", file));
      }
    }
    if (holders.size() > kMaxTensors) {
      return absl::InvalidArgumentError(absl::StrCat(
          index_path, ": the shards hold more than ", kMaxTensors, " tensors"));
    }
  }
  for (const auto& [tensor, file] : weight_map) {
    const auto holder = holders.find(tensor);
    if (holder == holders.end() || holder->second != file) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": tensor ", Quoted(tensor),
                       " is said to be in ", file, ", which lacks it"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Shard>> OpenIndexed(const fs::path& directory) {
  const std::string index_path = (directory / kIndexFileName).string();
  const absl::StatusOr<WeightMap> weight_map = ReadIndex(index_path);
  if (!weight_map.ok()) return weight_map.status();
  std::set<std::string> names;
  for (const auto& [tensor, name] : *weight_map) names.insert(name);
  if (names.size() > kMaxShards) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, ": ", names.size(),
                     " shards, over the limit of ", kMaxShards));
  }
  std::vector<Shard> shards;
  for (const std::string& name : names) {
    const absl::StatusOr<std::string> path = FindShard(directory, name);
    if (!path.ok()) return path.status();
    absl::StatusOr<Shard> shard = OpenShard(*path);
    if (!shard.ok()) return shard.status();
    shards.push_back(*std::move(shard));
  }
  const absl::Status status = CheckIndex(*weight_map, shards, index_path);
  if (!status.ok()) return status;
  return shards;
}

// By file name.
absl::StatusOr<std::vector<Shard>> OpenShards(const fs::path& path) {
  std::vector<Shard> shards;
  const absl::StatusOr<std::optional<std::string>> gguf =
      FindGguf(path.string());
  if (!gguf.ok()) return gguf.status();
  if (gguf->has_value()) {
    absl::StatusOr<Shard> shard = OpenGgufShard(**gguf);
    if (!shard.ok()) return shard.status();
    shards.push_back(*std::move(shard));
    return shards;
  }
  std::error_code error;  // what cannot be asked about is not there
  fs::path file = path;
  if (fs::is_directory(path, error)) {
    file = path / kSingleFileName;
    if (!fs::exists(file, error)) {
      if (fs::exists(path / kIndexFileName, error)) return OpenIndexed(path);
      return absl::NotFoundError(
          absl::StrCat(path.string(), ": has neither ", kSingleFileName, ", ",
                       kIndexFileName, " nor a GGUF file"));
    }
  }
  absl::StatusOr<Shard> shard = OpenShard(file.string());
  if (!shard.ok()) return shard.status();
  shards.push_back(*std::move(shard));
  return shards;
}

}  // namespace

Checkpoint::Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& path) {
  absl::StatusOr<std::vector<Shard>> shards = OpenShards(path);
  if (!shards.ok()) return shards.status();
  Checkpoint checkpoint;
  for (Shard& shard : *shards) {
    for (TensorEntry& entry : shard.entries) {
      if (!entry.dtype) {
        checkpoint.unread_.emplace(
            std::move(entry.name),
            UnreadTensor{entry.type_name,
                         static_cast<int64_t>(entry.data.size())});
        continue;
      }
      checkpoint.tensor_bytes_ += static_cast<int64_t>(entry.data.size());
      checkpoint.tensors_.emplace(
          std::move(entry.name),
          TensorView{*entry.dtype, std::move(entry.shape), entry.data});
    }
    checkpoint.files_.push_back(std::move(shard.file));
  }
  return checkpoint;
}

const TensorView* Checkpoint::Find(std::string_view name) const {
  const auto found = tensors_.find(absl::string_view(name.data(), name.size()));
  return found == tensors_.end() ? nullptr : &found->second;
}

absl::StatusOr<std::string> Checkpoint::Sha256() const {
  std::string lines;
  for (const auto& file : files_) {
    const absl::Span<const std::byte> bytes = file->bytes();
    absl::StatusOr<std::string> sum =
        Sha256Hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    if (!sum.ok() || files_.size() == 1) return sum;
    absl::StrAppend(&lines, *sum, "  ",
                    fs::path(file->path()).filename().string(), "\n");
  }
  return Sha256Hex(lines);
}

}  // namespace headcount
