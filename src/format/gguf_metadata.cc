#include "format/gguf_metadata.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/checked.h"
#include "format/quoted.h"

namespace headcount {
namespace {

absl::Status Incomplete() {
  return absl::InvalidArgumentError("the file ends inside it: incomplete");
}

template <typename T>
T At(absl::Span<const std::byte> bytes, uint64_t i) {
  T value{};
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

size_t GgufMetadata::BytesOf(Type type) {
  switch (type) {
    case Type::kUint8:
    case Type::kInt8:
    case Type::kBool:
      return 1;
    case Type::kUint16:
    case Type::kInt16:
      return 2;
    case Type::kUint32:
    case Type::kInt32:
    case Type::kFloat32:
      return 4;
    case Type::kUint64:
    case Type::kInt64:
    case Type::kFloat64:
      return 8;
    case Type::kString:
    case Type::kArray:
      return 0;
  }
  return 0;
}

const char* GgufMetadata::NameOf(Type type) {
  switch (type) {
    case Type::kFloat32:
    case Type::kFloat64:
      return "number";
    case Type::kBool:
      return "boolean";
    case Type::kString:
      return "string";
    default:
      return "integer";
  }
}

bool GgufMetadata::IsInteger(Type type) {
  return std::string_view(NameOf(type)) == "integer";
}

bool GgufMetadata::IsNumber(Type type) {
  return type != Type::kBool && BytesOf(type) > 0;
}

bool GgufMetadata::IsBool(Type type) { return type == Type::kBool; }

bool GgufMetadata::IsString(Type type) { return type == Type::kString; }

std::string GgufMetadata::Describe(const Value& value) {
  if (!value.is_array) return absl::StrCat("one ", NameOf(value.type));
  return absl::StrCat("an array of ", value.count, " ", NameOf(value.type),
                      value.count == 1 ? "" : "s");
}

absl::StatusOr<GgufMetadata::Value> GgufMetadata::ReadValue(
    ByteReader& reader) {
  const auto is_type = [](uint32_t type) {
    return type <= static_cast<uint32_t>(Type::kFloat64);
  };
  auto type = reader.Read<uint32_t>();
  if (!type) return Incomplete();
  Value value;
  value.count = 1;
  value.is_array = *type == static_cast<uint32_t>(Type::kArray);
  if (value.is_array) {
    type = reader.Read<uint32_t>();
    const auto count = reader.Read<uint64_t>();
    if (!type || !count) return Incomplete();
    value.count = *count;
  }
  if (!is_type(*type)) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown value type ", *type));
  }
  value.type = static_cast<Type>(*type);
  if (value.type == Type::kArray) {
    return absl::InvalidArgumentError("an array of arrays is not supported");
  }

  const absl::Span<const std::byte> start = reader.rest();
  if (const size_t bytes = BytesOf(value.type); bytes > 0) {
    const auto size = CheckedMul<uint64_t>(value.count, bytes);
    if (!size || !reader.ReadBytes(*size)) return Incomplete();
  } else {
    for (uint64_t i = 0; i < value.count; ++i) {
      if (!reader.ReadString()) return Incomplete();
    }
  }
  value.bytes = start.first(start.size() - reader.rest().size());
  if (value.type == Type::kBool &&
      std::any_of(value.bytes.begin(), value.bytes.end(),
                  [](std::byte b) { return b > std::byte{1}; })) {
    return absl::InvalidArgumentError("a boolean is neither 0 nor 1");
  }
  return value;
}

absl::StatusOr<GgufMetadata> GgufMetadata::Read(ByteReader& reader,
                                                uint64_t count,
                                                const std::string& what) {
  if (count > kMaxGgufKeys) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, ": ", count, " keys, over the limit of ", kMaxGgufKeys));
  }
  GgufMetadata metadata;
  metadata.what_ = what;
  for (uint64_t i = 0; i < count; ++i) {
    const auto key = reader.ReadString();
    if (!key || key->empty() || key->size() > kMaxGgufKeyBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          what, ": the name of key ", i + 1, " of ", count, " ",
          !key ? "leads past the end of the file"
          : key->empty()
              ? "is empty"
              : absl::StrCat("takes ", key->size(),
                             " bytes, over the limit of ", kMaxGgufKeyBytes)));
    }
    const absl::StatusOr<Value> value = ReadValue(reader);
    if (!value.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": key ", Quoted(*key), ": ",
                       std::string(value.status().message())));
    }
    if (!metadata.values_.emplace(*key, *value).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": key ", Quoted(*key), " is there twice"));
    }
  }
  return metadata;
}

bool GgufMetadata::Has(std::string_view key) const {
  return values_.contains(key);
}

bool GgufMetadata::IsArray(std::string_view key) const {
  const auto found = values_.find(key);
  return found != values_.end() && found->second.is_array;
}

std::vector<std::string_view> GgufMetadata::keys() const {
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : values_) keys.push_back(key);
  return keys;
}

absl::StatusOr<std::string> GgufMetadata::Encoded(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) {
    return absl::NotFoundError(
        absl::StrCat(what_, ": has no key ", Quoted(key)));
  }
  const Value& value = found->second;
  std::string encoded;
  const auto append = [&](auto number) {
    encoded.append(reinterpret_cast<const char*>(&number), sizeof(number));
  };
  if (value.is_array) append(static_cast<uint32_t>(Type::kArray));
  append(static_cast<uint32_t>(value.type));
  if (value.is_array) append(value.count);
  encoded.append(reinterpret_cast<const char*>(value.bytes.data()),
                 value.bytes.size());
  return encoded;
}

absl::Status GgufMetadata::Invalid(std::string_view key,
                                   std::string_view message) const {
  return absl::InvalidArgumentError(
      absl::StrCat(what_, ": key ", Quoted(key), ": ", std::string(message)));
}

absl::StatusOr<const GgufMetadata::Value*> GgufMetadata::Find(
    std::string_view key, const char* wanted, bool (*accepts)(Type),
    bool may_be_array) const {
  const auto found = values_.find(key);
  if (found == values_.end()) {
    return absl::NotFoundError(
        absl::StrCat(what_, ": has no key ", Quoted(key)));
  }
  const Value& value = found->second;
  if (!accepts(value.type) || (value.is_array && !may_be_array)) {
    return absl::InvalidArgumentError(absl::StrCat(what_, ": key ", Quoted(key),
                                                   " is ", Describe(value),
                                                   ", not ", wanted));
  }
  return &value;
}

absl::StatusOr<int64_t> GgufMetadata::IntAt(std::string_view key,
                                            const Value& value,
                                            uint64_t i) const {
  switch (value.type) {
    case Type::kUint8:
      return At<uint8_t>(value.bytes, i);
    case Type::kInt8:
      return At<int8_t>(value.bytes, i);
    case Type::kUint16:
      return At<uint16_t>(value.bytes, i);
    case Type::kInt16:
      return At<int16_t>(value.bytes, i);
    case Type::kUint32:
      return At<uint32_t>(value.bytes, i);
    case Type::kInt32:
      return At<int32_t>(value.bytes, i);
    case Type::kInt64:
      return At<int64_t>(value.bytes, i);
    default:
      break;
  }
  const auto number = At<uint64_t>(value.bytes, i);
  const auto narrowed = CheckedCast<int64_t>(number);
  if (!narrowed) {
    return Invalid(key, absl::StrCat(number, " is too large"));
  }
  return *narrowed;
}

double GgufMetadata::NumberAt(const Value& value, uint64_t i) {
  switch (value.type) {
    case Type::kFloat32:
      return At<float>(value.bytes, i);
    case Type::kFloat64:
      return At<double>(value.bytes, i);
    case Type::kUint64:
      return static_cast<double>(At<uint64_t>(value.bytes, i));
    default:
      return static_cast<double>(*GgufMetadata().IntAt("", value, i));
  }
}

absl::StatusOr<int64_t> GgufMetadata::Int(std::string_view key) const {
  const auto value = Find(key, "an integer", IsInteger, false);
  if (!value.ok()) return value.status();
  return IntAt(key, **value, 0);
}

absl::StatusOr<std::vector<int64_t>> GgufMetadata::Ints(
    std::string_view key) const {
  const auto value = Find(key, "an array of integers", IsInteger, true);
  if (!value.ok()) return value.status();
  std::vector<int64_t> numbers;
  for (uint64_t i = 0; i < (*value)->count; ++i) {
    const absl::StatusOr<int64_t> number = IntAt(key, **value, i);
    if (!number.ok()) return number.status();
    numbers.push_back(*number);
  }
  return numbers;
}

absl::StatusOr<double> GgufMetadata::Number(std::string_view key) const {
  const auto value = Find(key, "a number", IsNumber, false);
  if (!value.ok()) return value.status();
  return NumberAt(**value, 0);
}

absl::StatusOr<std::vector<double>> GgufMetadata::Numbers(
    std::string_view key) const {
  const auto value = Find(key, "an array of numbers", IsNumber, true);
  if (!value.ok()) return value.status();
  std::vector<double> numbers;
  for (uint64_t i = 0; i < (*value)->count; ++i) {
    numbers.push_back(NumberAt(**value, i));
  }
  return numbers;
}

absl::StatusOr<bool> GgufMetadata::Bool(std::string_view key) const {
  const auto value = Find(key, "a boolean", IsBool, false);
  if (!value.ok()) return value.status();
  return (*value)->bytes[0] != std::byte{0};
}

absl::StatusOr<std::vector<std::string_view>> GgufMetadata::Strings(
    std::string_view key) const {
  const auto value = Find(key, "an array of strings", IsString, true);
  if (!value.ok()) return value.status();
  std::vector<std::string_view> strings;
  ByteReader reader((*value)->bytes);
  for (uint64_t i = 0; i < (*value)->count; ++i) {
    strings.push_back(*reader.ReadString());
  }
  return strings;
}

absl::StatusOr<std::string> GgufMetadata::String(std::string_view key) const {
  const auto value = Find(key, "a string", IsString, false);
  if (!value.ok()) return value.status();
  return std::string(*ByteReader((*value)->bytes).ReadString());
}

}  // namespace headcount
