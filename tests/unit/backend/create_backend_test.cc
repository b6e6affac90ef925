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

// A server whose driver was too old ran on the CPU and did not say so.
TEST(ChooseBackend, TellsWhyAutoIsTheCpu) {
  const absl::Status error = absl::FailedPreconditionError("no NVIDIA driver");
  const OpenCuda fails = [&](int) { return error; };
  absl::Status no_gpu;
  const auto automatic = ChooseBackend({}, 1, fails, &no_gpu);
  ASSERT_TRUE(automatic.ok()) << automatic.status();
  EXPECT_THAT((*automatic)->name(), StartsWith("cpu ("));
  EXPECT_EQ(no_gpu, error);
  EXPECT_TRUE(ChooseBackend({}, 1, fails, nullptr).ok());

  EXPECT_TRUE(
      ChooseBackend({.kind = DeviceName::Kind::kCpu}, 1, fails, &no_gpu).ok());
  EXPECT_TRUE(no_gpu.ok()) << "nobody asked for one";
  EXPECT_EQ(ChooseBackend({.kind = DeviceName::Kind::kCuda}, 1, fails, &no_gpu)
                .status(),
            error);
}

TEST(ChooseBackend, HasNothingToTellWhereTheBuildKnowsNoGpuOrTakesOne) {
  absl::Status no_gpu = absl::UnknownError("of before");
  ASSERT_TRUE(ChooseBackend({}, 1, OpenCuda(), &no_gpu).ok());
  EXPECT_TRUE(no_gpu.ok()) << no_gpu;
  int opened = -1;
  const OpenCuda opens = [&](int ordinal) {
    opened = ordinal;
    return CreateBackend({.kind = DeviceName::Kind::kCpu}, 3);
  };
  const auto chosen = ChooseBackend({}, 1, opens, &no_gpu);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_THAT((*chosen)->name(), HasSubstr("3 threads"));
  EXPECT_EQ(opened, 0);
  EXPECT_TRUE(no_gpu.ok()) << no_gpu;
}

}  // namespace
}  // namespace headcount
