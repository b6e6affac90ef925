#include "config_reference.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "gtest/gtest.h"
#include "server/config.h"

namespace headcount {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// ServerConfig with its comments, which the one in this program lacks.
class ConfigReference : public ::testing::Test {
 protected:
  void SetUp() override {
    google::protobuf::FileDescriptorSet set;
    std::ifstream file(HEADCOUNT_CONFIG_DESCRIPTOR, std::ios::binary);
    ASSERT_TRUE(set.ParseFromIstream(&file));
    ASSERT_EQ(set.file_size(), 1);
    ASSERT_NE(pool_.BuildFile(set.file(0)), nullptr);
    server_ = pool_.FindMessageTypeByName("headcount.config.v1.ServerConfig");
    ASSERT_NE(server_, nullptr);
  }

  google::protobuf::DescriptorPool pool_;
  const Descriptor* server_ = nullptr;
};

TEST_F(ConfigReference, HasEveryKeyAndNoOther) {
  std::set<std::string> keys;
  for (const ConfigKey& key : ConfigKeys(*server_)) keys.insert(key.path);
  std::set<std::string> described;
  for (const auto& [path, values] : ConfigKeyValues()) described.insert(path);
  EXPECT_EQ(keys, described);
  EXPECT_TRUE(keys.contains("models[].kv_cache.heads[].streaming.sink"));
}

// HEADCOUNT_WRITE_DOCS=1 makes the file anew.
TEST_F(ConfigReference, IsThatOfTheDocumentation) {
  const std::string path = HEADCOUNT_SOURCE_DIR "/docs/config.md";
  const std::string expected = ConfigMarkdown(*server_);
  if (std::getenv("HEADCOUNT_WRITE_DOCS") != nullptr) {
    std::ofstream(path) << expected;
  }
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(text, expected);
}

// Puts `value`, as it is written in YAML, at the path of a valid configuration
// and says whether it still is one.
bool Accepts(const std::string& path, const std::string& value) {
  config::v1::ServerConfig config = DefaultServerConfig();
  config::v1::ModelSpec* spec = config.add_models();
  spec->set_name("m");
  spec->mutable_source()->set_path("x");
  spec->set_precision("fast");
  spec->set_preload("on");
  spec->mutable_kv_cache()->set_dtype("f32");
  config::v1::KvHeads* heads = spec->mutable_kv_cache()->add_heads();
  heads->set_layer(0);
  heads->add_kv_heads("0");
  heads->mutable_streaming()->set_recent(1);
  CHECK(ValidateServerConfig(config).ok()) << ValidateServerConfig(config);
  Message* message = &config;
  for (absl::string_view name : absl::StrSplit(path, '.')) {
    const bool in_list = absl::ConsumeSuffix(&name, "[]");
    const FieldDescriptor* field =
        message->GetDescriptor()->FindFieldByName(std::string(name));
    CHECK(field != nullptr) << path;
    const auto& reflection = *message->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        message = in_list ? reflection.MutableRepeatedMessage(message, field, 0)
                          : reflection.MutableMessage(message, field);
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        reflection.SetString(message, field, value);
        break;
      case FieldDescriptor::CPPTYPE_INT32:
        reflection.SetInt32(message, field, std::stoi(value));
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        reflection.SetInt64(message, field, std::stoll(value));
        break;
      default:
        reflection.SetDouble(message, field, std::stod(value));
    }
  }
  return ValidateServerConfig(config).ok();
}

std::string Written(double number) { return absl::StrFormat("%.15g", number); }

TEST(ConfigKeyValues, AreWhatTheServerTakes) {
  for (const auto& [path, values] : ConfigKeyValues()) {
    SCOPED_TRACE(path);
    for (const std::string& choice : values.choices) {
      EXPECT_TRUE(Accepts(path, choice)) << choice;
    }
    if (!values.choices.empty()) {
      EXPECT_FALSE(Accepts(path, "none of them"));
    }
    if (values.longest) {
      EXPECT_TRUE(Accepts(path, "0s"));
      EXPECT_TRUE(Accepts(path, absl::FormatDuration(*values.longest)));
      EXPECT_FALSE(Accepts(
          path, absl::FormatDuration(*values.longest + absl::Seconds(1))));
    }
    if (!values.range) continue;
    const auto [least, most] = *values.range;
    EXPECT_TRUE(Accepts(path, Written(least)));
    // Half of the least share: 0 is an absent one.
    EXPECT_FALSE(
        Accepts(path, Written(least < 1 && least > 0 ? least / 2 : least - 1)));
    if (most == INT32_MAX) continue;
    EXPECT_TRUE(Accepts(path, Written(most)));
    EXPECT_FALSE(Accepts(path, Written(most < 1 ? most + 0.001 : most + 1)));
  }
  EXPECT_TRUE(Accepts("kv_pool", "98%"));
  EXPECT_FALSE(Accepts("kv_pool", "98.01%"));
}

}  // namespace
}  // namespace headcount
