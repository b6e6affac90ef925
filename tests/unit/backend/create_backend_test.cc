#include "backend/create_backend.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ParseDeviceName, KnowsWhatThereIs) {
  EXPECT_EQ(ParseDeviceName("auto")->kind, DeviceName::Kind::kAuto);
  EXPECT_EQ(ParseDeviceName("cpu")->kind, DeviceName::Kind::kCpu);
  EXPECT_EQ(ParseDeviceName("cuda")->kind, DeviceName::Kind::kCuda);
  EXPECT_EQ(ParseDeviceName("cuda")->ordinal, 0);
  EXPECT_EQ(ParseDeviceName("cuda:3")->ordinal, 3);
  for (const char* text :
       {"", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:1x", "cuda:99999999999"}) {
    EXPECT_FALSE(ParseDeviceName(text).has_value()) << text;
  }
}

TEST(CreateBackend, TakesTheCpuWhereItIsAskedTo) {
  const auto backend = CreateBackend({.kind = DeviceName::Kind::kCpu}, 1);
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_THAT((*backend)->name(), StartsWith("cpu ("));
}

TEST(CreateBackend, TheCpuHasMemoryLeft) {
  const auto backend = CreateBackend({.kind = DeviceName::Kind::kCpu}, 1);
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_GT((*backend)->FreeBytes(), int64_t{1} << 20);
}

// No machine has a thousand of them; some builds know none.
TEST(CreateBackend, SaysWhatToDoAboutADeviceThatIsNotThere) {
  const DeviceName name{.kind = DeviceName::Kind::kCuda, .ordinal = 1000};
  const absl::Status status = CreateBackend(name, 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              testing::AnyOf(HasSubstr("-DHEADCOUNT_CUDA=ON"),
                             HasSubstr("--device cpu"),
                             HasSubstr("no device cuda:1000")));
}

}  // namespace
}  // namespace headcount
