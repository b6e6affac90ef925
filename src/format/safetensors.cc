#include "format/safetensors.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/checked.h"
#include "format/json_events.h"
#include "format/quoted.h"

namespace headcount {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr char kMetadataName[] = "__metadata__";

struct HeaderType {
  const char* name;
  int64_t bits;
  std::optional<ElementType> dtype = std::nullopt;
};

constexpr HeaderType kHeaderTypes[] = {
    {"F32", 32, ElementType::kF32},
    {"F16", 16, ElementType::kF16},
    {"BF16", 16, ElementType::kBf16},
    {"BOOL", 8},
    {"F4", 4},
    {"F6_E2M3", 6},
    {"F6_E3M2", 6},
    {"U8", 8},
    {"I8", 8},
    {"F8_E4M3", 8},
    {"F8_E4M3FNUZ", 8},
    {"F8_E5M2", 8},
    {"F8_E5M2FNUZ", 8},
    {"F8_E8M0", 8},
    {"I16", 16},
    {"U16", 16},
    {"I32", 32},
    {"U32", 32},
    {"C64", 64},
    {"F64", 64},
    {"I64", 64},
    {"U64", 64},
};

const HeaderType* FindHeaderType(const std::string& name) {
  const auto* const found =
      std::find_if(std::begin(kHeaderTypes), std::end(kHeaderTypes),
                   [&](const HeaderType& type) { return name == type.name; });
  return found == std::end(kHeaderTypes) ? nullptr : found;
}

// Nothing when the product does not fit, or is no whole number of bytes.
std::optional<int64_t> TensorBytes(absl::Span<const int64_t> shape,
                                   const HeaderType& type) {
  std::optional<int64_t> bits = type.bits;
  for (int64_t size : shape) {
    bits = CheckedMul(*bits, size);
    if (!bits) return std::nullopt;
  }
  if (*bits % 8 != 0) return std::nullopt;
  return *bits / 8;
}

// Reads the header in one pass and checks each tensor on its own: a known
// type, whole numbers, a range inside `data` that is as long as the shape
// says. __metadata__ has to be strings, and is dropped.
class HeaderReader final : public JsonEvents {
 public:
  explicit HeaderReader(absl::Span<const std::byte> data) : data_(data) {}

  // In the order of the header.
  std::vector<TensorEntry> TakeEntries() { return std::move(entries_); }

 private:
  // What the next event belongs to: there is no deeper level.
  enum class Place { kFile, kHeader, kMetadata, kTensor, kNumbers };

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return Unexpected(absl::StrCat("the number ", value));
  }
  bool number_unsigned(number_unsigned_t value) override;
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", Quoted(text)));
  }
  bool string(string_t& value) override;
  bool start_object(size_t) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;

  bool FinishTensor();
  bool Unexpected(const std::string& value) {
    return Fail(absl::StrCat(Where(), ": ", value, " is not allowed here"));
  }
  bool FailTensor(const std::string& message) {
    return Fail(absl::StrCat("tensor ", Quoted(name_), ": ", message));
  }
  bool FailFieldTwice() {
    return FailTensor(
        absl::StrCat("the field ", Quoted(field_), " is there twice"));
  }
  std::string Where() const;

  const absl::Span<const std::byte> data_;
  std::vector<TensorEntry> entries_;
  bool has_metadata_ = false;

  Place place_ = Place::kFile;
  std::string name_;   // the last key of the header
  std::string field_;  // the last key of the tensor
  std::vector<int64_t> numbers_;

  // Of the tensor being read; absent: not read yet.
  const HeaderType* type_ = nullptr;
  std::optional<std::vector<int64_t>> shape_;
  std::optional<std::vector<int64_t>> data_offsets_;
};

std::string HeaderReader::Where() const {
  switch (place_) {
    case Place::kFile:
      break;
    case Place::kHeader:
    case Place::kMetadata:
      return Quoted(name_);
    case Place::kTensor:
    case Place::kNumbers:
      return absl::StrCat("tensor ", Quoted(name_), ", field ", Quoted(field_));
  }
  return "header";
}

bool HeaderReader::key(string_t& name) {
  if (place_ == Place::kMetadata) return true;
  if (place_ == Place::kHeader) {
    name_ = std::move(name);
    return true;
  }
  field_ = std::move(name);
  if (field_ == "dtype") return type_ == nullptr || FailFieldTwice();
  if (field_ == "shape") return !shape_ || FailFieldTwice();
  if (field_ == "data_offsets") return !data_offsets_ || FailFieldTwice();
  return FailTensor(absl::StrCat("unknown field ", Quoted(field_)));
}

bool HeaderReader::start_object(size_t) {
  if (place_ == Place::kFile) {
    place_ = Place::kHeader;
    return true;
  }
  if (place_ != Place::kHeader) return Unexpected("an object");
  if (name_ == kMetadataName) {
    if (has_metadata_) return Fail("__metadata__ is there twice");
    has_metadata_ = true;
    place_ = Place::kMetadata;
    return true;
  }
  if (entries_.size() == kMaxTensors) {
    return Fail(absl::StrCat("more than ", kMaxTensors, " tensors"));
  }
  place_ = Place::kTensor;
  type_ = nullptr;
  shape_.reset();
  data_offsets_.reset();
  return true;
}

bool HeaderReader::end_object() {
  if (place_ == Place::kTensor && !FinishTensor()) return false;
  place_ = place_ == Place::kHeader ? Place::kFile : Place::kHeader;
  return true;
}

bool HeaderReader::string(string_t& value) {
  if (place_ == Place::kMetadata) return true;
  if (place_ != Place::kTensor || field_ != "dtype") {
    return Unexpected(absl::StrCat("the string ", Quoted(value)));
  }
  type_ = FindHeaderType(value);
  if (type_ == nullptr) {
    return FailTensor(absl::StrCat("unknown dtype ", Quoted(value)));
  }
  return true;
}

bool HeaderReader::start_array(size_t) {
  if (place_ != Place::kTensor || field_ == "dtype") {
    return Unexpected("an array");
  }
  place_ = Place::kNumbers;
  numbers_.clear();
  return true;
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (place_ != Place::kNumbers) {
    return Unexpected(absl::StrCat("the number ", value));
  }
  const std::optional<int64_t> number = CheckedCast<int64_t>(value);
  if (!number) {
    return FailTensor(absl::StrCat(Quoted(field_), " contains ", value,
                                   ", which is too large"));
  }
  const size_t limit = field_ == "shape" ? kMaxTensorRank : 2;
  if (numbers_.size() == limit) {
    return FailTensor(
        absl::StrCat(Quoted(field_), " has more than ", limit, " numbers"));
  }
  numbers_.push_back(*number);
  return true;
}

bool HeaderReader::end_array() {
  place_ = Place::kTensor;
  if (field_ == "shape") {
    shape_ = numbers_;
    return true;
  }
  if (numbers_.size() != 2) {
    return FailTensor("'data_offsets' has to be two numbers, begin and end");
  }
  data_offsets_ = numbers_;
  return true;
}

bool HeaderReader::FinishTensor() {
  if (type_ == nullptr || !shape_ || !data_offsets_) {
    return FailTensor(
        "needs all of the fields 'dtype', 'shape' and 'data_offsets'");
  }
  const std::string shape = absl::StrCat(
      "'shape' [", absl::StrJoin(*shape_, ", "), "] of ", type_->name);
  const std::optional<int64_t> bytes = TensorBytes(*shape_, *type_);
  if (!bytes) {
    return FailTensor(
        absl::StrCat(shape, " overflows, or is not a whole number of bytes"));
  }
  const int64_t begin = (*data_offsets_)[0];
  const int64_t end = (*data_offsets_)[1];
  const std::string range =
      absl::StrCat("'data_offsets' [", begin, ", ", end, "]");
  if (begin > end) return FailTensor(absl::StrCat(range, " run backwards"));
  if (std::cmp_greater(end, data_.size())) {
    return FailTensor(absl::StrCat(range, " lead past the ", data_.size(),
                                   " bytes of data: the file is incomplete"));
  }
  if (end - begin != *bytes) {
    return FailTensor(absl::StrCat(shape, " takes ", *bytes, " bytes, but ",
                                   range, " hold ", end - begin));
  }
  entries_.push_back(
      {std::move(name_), type_->dtype, type_->name, *std::move(shape_),
       data_.subspan(static_cast<size_t>(begin), static_cast<size_t>(*bytes))});
  return true;
}

absl::Status CheckNamesAreUnique(absl::Span<const TensorEntry> entries,
                                 const std::string& what) {
  absl::flat_hash_set<absl::string_view> names;
  for (const TensorEntry& entry : entries) {
    if (!names.insert(entry.name).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          what, ": tensor ", Quoted(entry.name), " is there twice"));
    }
  }
  return absl::OkStatus();
}

// `entries` are in the order of their bytes.
absl::Status CheckDataIsCovered(absl::Span<const TensorEntry> entries,
                                absl::Span<const std::byte> data,
                                const std::string& what) {
  const std::byte* covered_to = data.data();
  for (const TensorEntry& entry : entries) {
    if (entry.data.data() < covered_to) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": tensor ", Quoted(entry.name),
                       " overlaps the tensor before it"));
    }
    if (entry.data.data() > covered_to) {
      return absl::InvalidArgumentError(absl::StrCat(
          what, ": ", entry.data.data() - covered_to, " bytes before tensor ",
          Quoted(entry.name), " belong to no tensor"));
    }
    covered_to += entry.data.size();
  }
  const std::ptrdiff_t rest = data.data() + data.size() - covered_to;
  if (rest != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, ": ", rest, " bytes after the last tensor belong to no tensor"));
  }
  return absl::OkStatus();
}

// Splits `file` into the text of its header and the bytes after it.
absl::StatusOr<std::pair<std::string_view, absl::Span<const std::byte>>>
SplitFile(absl::Span<const std::byte> file, const std::string& what) {
  if (file.size() < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, ": ", file.size(), " bytes are too few for a safetensors file"));
  }
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) {
    length = length << 8 | std::to_integer<uint64_t>(file[i]);
  }
  if (std::cmp_greater(length, kMaxSafetensorsHeaderBytes)) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, ": header of ", length, " bytes, over the limit of ",
        kMaxSafetensorsHeaderBytes, ": this is no safetensors file"));
  }
  const absl::Span<const std::byte> rest = file.subspan(kLengthBytes);
  if (length > rest.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": header of ", length, " bytes, but only ",
                     rest.size(), " follow: the file is incomplete"));
  }
  const std::string_view header(reinterpret_cast<const char*>(rest.data()),
                                static_cast<size_t>(length));
  if (header.empty() || header[0] != '{') {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": the header does not start with '{'"));
  }
  return std::pair(header, rest.subspan(header.size()));
}

}  // namespace

absl::StatusOr<std::vector<TensorEntry>> ParseSafetensors(
    absl::Span<const std::byte> file, const std::string& what) {
  const auto parts = SplitFile(file, what);
  if (!parts.ok()) return parts.status();
  const auto& [header, data] = *parts;

  HeaderReader reader(data);
  absl::Status status = reader.Walk(header, what);
  if (!status.ok()) return status;
  std::vector<TensorEntry> entries = reader.TakeEntries();

  status = CheckNamesAreUnique(entries, what);
  if (!status.ok()) return status;
  // Empty tensors come before the one that starts where they lie.
  std::sort(entries.begin(), entries.end(),
            [](const TensorEntry& a, const TensorEntry& b) {
              return std::pair(a.data.data(), a.data.size()) <
                     std::pair(b.data.data(), b.data.size());
            });
  status = CheckDataIsCovered(entries, data, what);
  if (!status.ok()) return status;
  return entries;
}

}  // namespace headcount
