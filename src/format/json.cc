#include "format/json.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "format/json_events.h"
#include "format/mapped_file.h"
#include "format/quoted.h"

namespace headcount {
namespace {

using nlohmann::json;

class TreeBuilder final : public JsonEvents {
 public:
  json TakeRoot() { return std::move(root_); }

 private:
  bool null() override { return Put(nullptr); }
  bool boolean(bool value) override { return Put(value); }
  bool number_integer(number_integer_t value) override { return Put(value); }
  bool number_unsigned(number_unsigned_t value) override { return Put(value); }
  bool number_float(number_float_t value, const string_t&) override {
    return Put(value);
  }
  bool string(string_t& value) override { return Put(std::move(value)); }
  bool start_object(size_t) override { return PutAndOpen(json::object()); }
  bool start_array(size_t) override { return PutAndOpen(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    auto* object = open_.back()->get_ptr<json::object_t*>();
    const auto [member, is_new] = object->try_emplace(std::move(name));
    if (!is_new) {
      return Fail(absl::StrCat("the key ", Quoted(member->first),
                               " is in the same object twice"));
    }
    member_ = &member->second;
    return true;
  }

  bool Put(json value) {
    *NextPlace() = std::move(value);
    return true;
  }

  bool PutAndOpen(json container) {
    if (open_.size() == kMaxJsonDepth) {
      return Fail(absl::StrCat("nests deeper than ", kMaxJsonDepth, " levels"));
    }
    json* const place = NextPlace();
    *place = std::move(container);
    open_.push_back(place);
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  json* NextPlace() {
    if (open_.empty()) return &root_;
    auto* array = open_.back()->get_ptr<json::array_t*>();
    return array != nullptr ? &array->emplace_back() : member_;
  }

  json root_;
  // The containers around the next value, outermost first. They stay where
  // they are: only the innermost grows.
  std::vector<json*> open_;
  json* member_ = nullptr;  // where the value of the last key goes
};

}  // namespace

absl::StatusOr<json> ParseJson(std::string_view text, std::string_view what) {
  TreeBuilder builder;
  absl::Status status = builder.Walk(text, what);
  if (!status.ok()) return status;
  return builder.TakeRoot();
}

absl::StatusOr<json> ReadJsonFile(const std::string& path) {
  const auto file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::Span<const std::byte> bytes = (*file)->bytes();
  if (bytes.size() > kMaxJsonBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", bytes.size(), " bytes, over the limit of ",
                     kMaxJsonBytes, " for a JSON file"));
  }
  return ParseJson({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                   path);
}

}  // namespace headcount
