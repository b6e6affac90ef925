#include "server/yaml_message.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "server/nearest_name.h"

namespace headcount {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using Kind = YamlNode::Kind;

// Where in the file the conversion is, for its errors.
struct Place {
  absl::string_view file;
  std::string path;

  Place Key(absl::string_view key) const {
    return {file,
            path.empty() ? std::string(key) : absl::StrCat(path, ".", key)};
  }
  Place Item(size_t index) const {
    return {file, absl::StrCat(path, "[", index, "]")};
  }
  absl::Status Error(int line, absl::string_view text) const {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ":", line, ": ", path.empty() ? "" : path + ": ", text));
  }
};

absl::Status Fill(const YamlNode& node, const Place& place, Message* message);

std::vector<std::string> FieldNames(const Descriptor& descriptor) {
  std::vector<std::string> names;
  for (int i = 0; i < descriptor.field_count(); ++i) {
    names.push_back(descriptor.field(i)->name());
  }
  return names;
}

absl::Status UnknownKey(const YamlNode& value, absl::string_view key,
                        const Place& place, const Descriptor& descriptor) {
  const std::vector<std::string> names = FieldNames(descriptor);
  const std::string nearest = NearestName(key, names);
  const std::string hint =
      nearest.empty() ? absl::StrCat("known here: ", absl::StrJoin(names, ", "))
                      : absl::StrCat("did you mean '", nearest, "'?");
  return place.Key(key).Error(value.key_line,
                              absl::StrCat("unknown key; ", hint));
}

std::string Quoted(absl::string_view text) {
  constexpr size_t kShown = 64;
  return absl::StrCat("'", text.substr(0, kShown),
                      text.size() > kShown ? "..." : "", "'");
}

// Only the usual spelling, so that no two keys of a map are the same number.
template <typename Int>
bool ParseWhole(absl::string_view text, Int* value) {
  return absl::SimpleAtoi(text, value) && absl::StrCat(*value) == text;
}

// The scalar as a value of `field`, set or added to it.
absl::Status FillScalar(const YamlNode& node, const Place& place,
                        const FieldDescriptor* field, Message* message) {
  if (node.kind == Kind::kNull) return place.Error(node.line, "has no value");
  if (node.kind != Kind::kScalar) {
    return place.Error(node.line, "must be a single value");
  }
  const Reflection* reflection = message->GetReflection();
  const bool repeated = field->is_repeated();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      repeated ? reflection->AddString(message, field, node.scalar)
               : reflection->SetString(message, field, node.scalar);
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t value = 0;
      if (!ParseWhole(node.scalar, &value)) break;
      reflection->SetInt32(message, field, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t value = 0;
      if (!ParseWhole(node.scalar, &value)) break;
      reflection->SetInt64(message, field, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value = 0;
      if (!absl::SimpleAtod(node.scalar, &value)) break;
      reflection->SetDouble(message, field, value);
      return absl::OkStatus();
    }
    default:
      CHECK(false) << "config.proto has a type that YAML is not read into: "
                   << field->full_name();
  }
  const bool whole = field->cpp_type() != FieldDescriptor::CPPTYPE_DOUBLE;
  return place.Error(node.line, absl::StrCat(Quoted(node.scalar), " is not a ",
                                             whole ? "whole number" : "number",
                                             whole ? " in range" : ""));
}

absl::Status FillMap(const YamlNode& node, const Place& place,
                     const FieldDescriptor* field, Message* message) {
  if (node.kind == Kind::kNull) return absl::OkStatus();
  if (node.kind != Kind::kMap) {
    return place.Error(node.line, "must be a map");
  }
  const Descriptor* entry_type = field->message_type();
  for (const auto& [key, value] : node.entries) {
    const Place here = place.Key(key);
    Message* entry = message->GetReflection()->AddMessage(message, field);
    const YamlNode key_node{
        .kind = Kind::kScalar, .line = value.key_line, .scalar = key};
    absl::Status status =
        FillScalar(key_node, here, entry_type->map_key(), entry);
    if (!status.ok()) return status;
    status = Fill(
        value, here,
        entry->GetReflection()->MutableMessage(entry, entry_type->map_value()));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FillList(const YamlNode& node, const Place& place,
                      const FieldDescriptor* field, Message* message) {
  if (node.kind == Kind::kNull) return absl::OkStatus();
  if (node.kind != Kind::kSequence) {
    return place.Error(node.line, "must be a list");
  }
  for (size_t i = 0; i < node.items.size(); ++i) {
    const absl::Status status =
        field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE
            ? Fill(node.items[i], place.Item(i),
                   message->GetReflection()->AddMessage(message, field))
            : FillScalar(node.items[i], place.Item(i), field, message);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FillField(const YamlNode& node, const Place& place,
                       const FieldDescriptor* field, Message* message) {
  if (field->is_map()) return FillMap(node, place, field, message);
  if (field->is_repeated()) return FillList(node, place, field, message);
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    if (node.kind == Kind::kNull) return absl::OkStatus();
    return Fill(node, place,
                message->GetReflection()->MutableMessage(message, field));
  }
  return FillScalar(node, place, field, message);
}

absl::Status Fill(const YamlNode& node, const Place& place, Message* message) {
  const Descriptor& descriptor = *message->GetDescriptor();
  const bool is_list =
      descriptor.field_count() == 1 && descriptor.field(0)->is_repeated();
  if (is_list) return FillList(node, place, descriptor.field(0), message);
  if (node.kind == Kind::kNull) return absl::OkStatus();
  if (node.kind != Kind::kMap) {
    return place.Error(
        node.line, absl::StrCat("must be a map; keys known here: ",
                                absl::StrJoin(FieldNames(descriptor), ", ")));
  }
  for (const auto& [key, value] : node.entries) {
    const FieldDescriptor* field = descriptor.FindFieldByName(key);
    if (field == nullptr) return UnknownKey(value, key, place, descriptor);
    const absl::Status status =
        FillField(value, place.Key(key), field, message);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status FillMessage(const YamlNode& root, absl::string_view file,
                         Message* message) {
  return Fill(root, {file, ""}, message);
}

}  // namespace headcount
