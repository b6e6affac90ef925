#include "format/write_gguf.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "format/gguf.h"
#include "format/quoted.h"

namespace headcount {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are written as they lie in memory");

constexpr int64_t kAlignment = 32;
constexpr char kAlignmentKey[] = "general.alignment";

// Types of a value (enum gguf_metadata_value_type).
enum ValueType : uint32_t {
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
};

template <typename T>
std::string Encode(T number) {
  return std::string(reinterpret_cast<const char*>(&number), sizeof(number));
}

std::string EncodeText(std::string_view text) {
  return absl::StrCat(Encode(uint64_t{text.size()}), std::string(text));
}

template <typename T>
std::string EncodeValue(ValueType type, T number) {
  return Encode(static_cast<uint32_t>(type)) + Encode(number);
}

std::string EncodeArray(ValueType type, size_t count) {
  return Encode(uint32_t{kArray}) + Encode(static_cast<uint32_t>(type)) +
         Encode(uint64_t{count});
}

}  // namespace

void GgufKeys::SetString(std::string_view key, std::string_view text) {
  SetEncoded(key, Encode(uint32_t{kString}) + EncodeText(text));
}

void GgufKeys::SetInt(std::string_view key, uint32_t value) {
  SetEncoded(key, EncodeValue(kUint32, value));
}

void GgufKeys::SetFloat(std::string_view key, float value) {
  SetEncoded(key, EncodeValue(kFloat32, value));
}

void GgufKeys::SetBool(std::string_view key, bool value) {
  SetEncoded(key, EncodeValue(kBool, static_cast<uint8_t>(value ? 1 : 0)));
}

void GgufKeys::SetInts(std::string_view key,
                       const std::vector<int32_t>& values) {
  std::string encoded = EncodeArray(kInt32, values.size());
  for (const int32_t value : values) encoded += Encode(value);
  SetEncoded(key, std::move(encoded));
}

void GgufKeys::SetStrings(std::string_view key,
                          const std::vector<std::string>& texts) {
  std::string encoded = EncodeArray(kString, texts.size());
  for (const std::string& text : texts) encoded += EncodeText(text);
  SetEncoded(key, std::move(encoded));
}

void GgufKeys::SetEncoded(std::string_view key, std::string encoded) {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(),
                   [&](const auto& entry) { return entry.first == key; });
  if (found == entries_.end()) {
    entries_.emplace_back(std::string(key), std::move(encoded));
  } else {
    found->second = std::move(encoded);
  }
}

bool GgufKeys::Has(std::string_view key) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const auto& entry) { return entry.first == key; });
}

absl::Status WriteGguf(const std::string& path, const GgufKeys& keys,
                       absl::Span<const TensorToWrite> tensors,
                       const WriteProgress& progress) {
  const absl::StatusOr<int64_t> total = BytesOf(tensors);
  if (!total.ok()) return total.status();
  GgufKeys all = keys;
  if (all.Has(kAlignmentKey)) all.SetInt(kAlignmentKey, kAlignment);
  std::string head = absl::StrCat("GGUF", Encode(uint32_t{3}),
                                  Encode(uint64_t{tensors.size()}),
                                  Encode(uint64_t{all.entries().size()}));
  for (const auto& [key, encoded] : all.entries()) {
    absl::StrAppend(&head, EncodeText(key), encoded);
  }
  int64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    if (tensor.name.size() >= kMaxGgufNameBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Quoted(tensor.name), ": GGUF has names of less than ",
          kMaxGgufNameBytes, " bytes"));
    }
    const absl::StatusOr<int64_t> bytes = BytesOf(tensor);
    if (!bytes.ok()) return bytes.status();
    absl::StrAppend(&head, EncodeText(tensor.name),
                    Encode(static_cast<uint32_t>(tensor.shape.size())));
    // The row length first.
    for (size_t i = tensor.shape.size(); i-- > 0;) {
      head += Encode(tensor.shape[i]);
    }
    absl::StrAppend(&head, Encode(GgmlTypeNumber(tensor.dtype)),
                    Encode(offset));
    offset += (*bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  head.resize((head.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
  absl::StatusOr<OutputFile> file = OutputFile::Create(path);
  if (!file.ok()) return file.status();
  absl::Status status = file->Append(head);
  if (status.ok())
    status = AppendTensors(tensors, kAlignment, progress, &*file);
  if (status.ok()) status = file->Commit();
  return status;
}

}  // namespace headcount
