#include "format/gguf.h"

#include <algorithm>
#include <bit>
#include <filesystem>
#include <iterator>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/checked.h"
#include "format/byte_reader.h"
#include "format/quoted.h"

namespace headcount {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "GGUF";
constexpr char kExtension[] = ".gguf";
constexpr char kAlignmentKey[] = "general.alignment";
constexpr int64_t kDefaultAlignment = 32;

// Element types by their number in the file (enum ggml_type). Numbers that are
// not here were taken back by GGML, or came later.
struct GgmlType {
  uint32_t number;
  const char* name;
  ElementBlock block;
  std::optional<ElementType> dtype = std::nullopt;
};

constexpr GgmlType kGgmlTypes[] = {
    {0, "F32", {1, 4}, ElementType::kF32},
    {1, "F16", {1, 2}, ElementType::kF16},
    {2, "Q4_0", {32, 18}, ElementType::kQ4_0},
    {3, "Q4_1", {32, 20}, ElementType::kQ4_1},
    {6, "Q5_0", {32, 22}, ElementType::kQ5_0},
    {7, "Q5_1", {32, 24}, ElementType::kQ5_1},
    {8, "Q8_0", {32, 34}, ElementType::kQ8_0},
    {9, "Q8_1", {32, 36}},
    {10, "Q2_K", {256, 84}},
    {11, "Q3_K", {256, 110}},
    {12, "Q4_K", {256, 144}, ElementType::kQ4_K},
    {13, "Q5_K", {256, 176}, ElementType::kQ5_K},
    {14, "Q6_K", {256, 210}, ElementType::kQ6_K},
    {15, "Q8_K", {256, 292}},
    {16, "IQ2_XXS", {256, 66}},
    {17, "IQ2_XS", {256, 74}},
    {18, "IQ3_XXS", {256, 98}},
    {19, "IQ1_S", {256, 50}},
    {20, "IQ4_NL", {32, 18}},
    {21, "IQ3_S", {256, 110}},
    {22, "IQ2_S", {256, 82}},
    {23, "IQ4_XS", {256, 136}},
    {24, "I8", {1, 1}},
    {25, "I16", {1, 2}},
    {26, "I32", {1, 4}},
    {27, "I64", {1, 8}},
    {28, "F64", {1, 8}},
    {29, "IQ1_M", {256, 56}},
    {30, "BF16", {1, 2}, ElementType::kBf16},
    {34, "TQ1_0", {256, 54}},
    {35, "TQ2_0", {256, 66}},
    {39, "MXFP4", {32, 17}},
    {40, "NVFP4", {64, 36}},
};

const GgmlType* FindGgmlType(uint32_t number) {
  const auto* const found =
      std::find_if(std::begin(kGgmlTypes), std::end(kGgmlTypes),
                   [&](const GgmlType& type) { return number == type.number; });
  return found == std::end(kGgmlTypes) ? nullptr : found;
}

// What the file says of a tensor, before its data is looked at.
struct TensorInfo {
  std::string_view name;
  const GgmlType* type = nullptr;
  std::vector<int64_t> shape;  // row-major
  uint64_t offset = 0;         // of its bytes, from the start of the data
};

class GgufParser {
 public:
  GgufParser(absl::Span<const std::byte> file, const std::string& what)
      : file_(file), reader_(file), what_(what) {}

  absl::StatusOr<GgufFile> Parse();

 private:
  template <typename... Parts>
  absl::Status Fail(const Parts&... parts) const {
    return absl::InvalidArgumentError(absl::StrCat(what_, ": ", parts...));
  }
  template <typename... Parts>
  absl::Status FailTensor(std::string_view name, const Parts&... parts) const {
    return Fail("tensor ", Quoted(name), ": ", parts...);
  }

  absl::Status ReadHeader();
  absl::Status ReadAlignment(const GgufMetadata& metadata);
  absl::StatusOr<TensorInfo> ReadTensorInfo(uint64_t index);
  absl::Status ReadShape(TensorInfo& info);
  absl::StatusOr<int64_t> TensorBytes(const TensorInfo& info) const;
  absl::StatusOr<std::vector<TensorEntry>> PlaceTensors(
      std::vector<TensorInfo> infos);

  const absl::Span<const std::byte> file_;
  ByteReader reader_;
  const std::string& what_;
  uint64_t num_tensors_ = 0;
  uint64_t num_keys_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
};

absl::Status GgufParser::ReadHeader() {
  const auto magic = reader_.ReadBytes(kMagic.size());
  if (!magic || std::string_view(reinterpret_cast<const char*>(magic->data()),
                                 magic->size()) != kMagic) {
    return Fail("does not start with 'GGUF': this is no GGUF file");
  }
  const auto version = reader_.Read<uint32_t>();
  const auto num_tensors = reader_.Read<uint64_t>();
  const auto num_keys = reader_.Read<uint64_t>();
  if (!version || !num_tensors || !num_keys) {
    return Fail(file_.size(), " bytes are too few for a GGUF file");
  }
  if (*version != 2 && *version != 3) {
    if (*version != 0 && (*version & 0xffff) == 0) {
      return Fail("is big-endian, which is not supported: convert the model ",
                  "for a little-endian machine");
    }
    return Fail("is of GGUF version ", *version,
                ", but only 2 and 3 are supported: convert the model anew");
  }
  if (*num_tensors > kMaxTensors) {
    return Fail(*num_tensors, " tensors, over the limit of ", kMaxTensors);
  }
  num_tensors_ = *num_tensors;
  num_keys_ = *num_keys;
  return absl::OkStatus();
}

absl::Status GgufParser::ReadAlignment(const GgufMetadata& metadata) {
  if (!metadata.Has(kAlignmentKey)) return absl::OkStatus();
  const absl::StatusOr<int64_t> alignment = metadata.Int(kAlignmentKey);
  if (!alignment.ok()) return alignment.status();
  if (*alignment <= 0 ||
      !std::has_single_bit<uint64_t>(static_cast<uint64_t>(*alignment))) {
    return Fail("key '", kAlignmentKey, "': ", *alignment,
                " is no power of two");
  }
  alignment_ = static_cast<uint64_t>(*alignment);
  return absl::OkStatus();
}

absl::Status GgufParser::ReadShape(TensorInfo& info) {
  const auto rank = reader_.Read<uint32_t>();
  if (!rank) return FailTensor(info.name, "the file is incomplete");
  if (*rank > kMaxGgufRank) {
    return FailTensor(info.name, *rank, " dimensions, over the limit of ",
                      kMaxGgufRank);
  }
  for (uint32_t i = 0; i < *rank; ++i) {
    const auto size = reader_.Read<uint64_t>();
    if (!size) return FailTensor(info.name, "the file is incomplete");
    const auto narrowed = CheckedCast<int64_t>(*size);
    if (!narrowed || *narrowed == 0) {
      return FailTensor(info.name, "dimension ", i + 1, " is of size ", *size);
    }
    info.shape.push_back(*narrowed);
  }
  std::reverse(info.shape.begin(), info.shape.end());
  return absl::OkStatus();
}

absl::StatusOr<TensorInfo> GgufParser::ReadTensorInfo(uint64_t index) {
  TensorInfo info;
  const auto name = reader_.ReadString();
  if (!name || name->empty() || name->size() > kMaxGgufNameBytes) {
    return Fail("the name of tensor ", index + 1, " of ", num_tensors_, " ",
                !name           ? "leads past the end of the file"
                : name->empty() ? "is empty"
                                : absl::StrCat("takes ", name->size(),
                                               " bytes, over the limit of ",
                                               kMaxGgufNameBytes));
  }
  info.name = *name;
  const absl::Status status = ReadShape(info);
  if (!status.ok()) return status;
  const auto type = reader_.Read<uint32_t>();
  const auto offset = reader_.Read<uint64_t>();
  if (!type || !offset) return FailTensor(*name, "the file is incomplete");
  info.type = FindGgmlType(*type);
  if (info.type == nullptr) {
    return FailTensor(*name, "unknown element type ", *type);
  }
  info.offset = *offset;
  return info;
}

absl::StatusOr<int64_t> GgufParser::TensorBytes(const TensorInfo& info) const {
  const auto& [block, block_bytes] = info.type->block;
  const std::string shape =
      absl::StrCat("the shape [", absl::StrJoin(info.shape, ", "), "]");
  const int64_t row = info.shape.empty() ? 1 : info.shape.back();
  if (row % block != 0) {
    return FailTensor(info.name, "rows of ", row,
                      " elements are no whole number of ", info.type->name,
                      " blocks, which have ", block);
  }
  std::optional<int64_t> bytes = CheckedMul(row / block, block_bytes);
  for (size_t i = 0; bytes && i + 1 < info.shape.size(); ++i) {
    bytes = CheckedMul(*bytes, info.shape[i]);
  }
  if (!bytes) return FailTensor(info.name, shape, " overflows");
  return *bytes;
}

absl::StatusOr<std::vector<TensorEntry>> GgufParser::PlaceTensors(
    std::vector<TensorInfo> infos) {
  std::sort(infos.begin(), infos.end(),
            [](const TensorInfo& a, const TensorInfo& b) {
              return a.offset < b.offset;
            });
  const auto padding = [&](size_t at) {
    return (alignment_ - at % alignment_) % alignment_;
  };
  const size_t header = file_.size() - reader_.rest().size();
  if (!infos.empty() && !reader_.ReadBytes(padding(header))) {
    return FailTensor(infos[0].name,
                      "its data leads past the end of the file: the file is "
                      "incomplete");
  }
  const absl::Span<const std::byte> data = reader_.rest();

  std::vector<TensorEntry> entries;
  uint64_t next = 0;  // where the next tensor has to start; within `data`
  for (TensorInfo& info : infos) {
    const absl::StatusOr<int64_t> bytes = TensorBytes(info);
    if (!bytes.ok()) return bytes.status();
    if (info.offset % alignment_ != 0) {
      return FailTensor(info.name, "its offset ", info.offset,
                        " is no multiple of the alignment, ", alignment_);
    }
    if (info.offset < next) {
      return FailTensor(info.name, "overlaps the tensor before it");
    }
    if (std::cmp_greater(*bytes, data.size()) ||
        info.offset > data.size() - static_cast<size_t>(*bytes)) {
      return FailTensor(info.name, "its ", *bytes, " bytes at offset ",
                        info.offset, " lead past the ", data.size(),
                        " bytes of data: the file is incomplete");
    }
    if (info.offset > next) {
      return FailTensor(info.name, info.offset - next,
                        " bytes before it belong to no tensor");
    }
    const size_t end = info.offset + static_cast<size_t>(*bytes);
    next = std::min(end + padding(end), data.size());
    entries.push_back({std::string(info.name), info.type->dtype,
                       info.type->name, std::move(info.shape),
                       data.subspan(info.offset, static_cast<size_t>(*bytes))});
  }
  return entries;
}

absl::StatusOr<GgufFile> GgufParser::Parse() {
  absl::Status status = ReadHeader();
  if (!status.ok()) return status;
  absl::StatusOr<GgufMetadata> metadata =
      GgufMetadata::Read(reader_, num_keys_, what_);
  if (!metadata.ok()) return metadata.status();
  status = ReadAlignment(*metadata);
  if (!status.ok()) return status;

  std::vector<TensorInfo> infos;
  absl::flat_hash_set<absl::string_view> names;
  for (uint64_t i = 0; i < num_tensors_; ++i) {
    absl::StatusOr<TensorInfo> info = ReadTensorInfo(i);
    if (!info.ok()) return info.status();
    if (!names.emplace(info->name.data(), info->name.size()).second) {
      return Fail("tensor ", Quoted(info->name), " is there twice");
    }
    infos.push_back(*std::move(info));
  }
  absl::StatusOr<std::vector<TensorEntry>> tensors =
      PlaceTensors(std::move(infos));
  if (!tensors.ok()) return tensors.status();
  return GgufFile{nullptr, *std::move(metadata), *std::move(tensors)};
}

}  // namespace

uint32_t GgmlTypeNumber(ElementType type) {
  const auto* const found =
      std::find_if(std::begin(kGgmlTypes), std::end(kGgmlTypes),
                   [&](const GgmlType& known) { return known.dtype == type; });
  return found->number;  // every type of ours is one of GGML's
}

absl::StatusOr<GgufFile> ParseGguf(absl::Span<const std::byte> file,
                                   const std::string& what) {
  return GgufParser(file, what).Parse();
}

absl::StatusOr<GgufFile> OpenGguf(const std::string& path) {
  auto file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<GgufFile> gguf = ParseGguf((*file)->bytes(), path);
  if (gguf.ok()) gguf->file = *std::move(file);
  return gguf;
}

absl::StatusOr<std::optional<std::string>> FindGguf(const std::string& path) {
  const fs::path model(path);
  std::error_code error;  // what cannot be asked about is not there
  if (!fs::is_directory(model, error)) {
    if (model.extension() != kExtension) return std::nullopt;
    return path;
  }
  std::vector<std::string> names;
  for (fs::directory_iterator i(model, error), end; !error && i != end;
       i.increment(error)) {
    if (i->path().extension() == ".safetensors") return std::nullopt;
    if (i->path().extension() == kExtension) {
      names.push_back(i->path().filename().string());
    }
  }
  if (names.empty()) return std::nullopt;
  if (names.size() > 1) {
    std::sort(names.begin(), names.end());
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": holds ", names.size(), " GGUF files, such as ",
        Quoted(names[0]), " and ", Quoted(names[1]), ": name the file itself"));
  }
  return (model / names[0]).string();
}

}  // namespace headcount
