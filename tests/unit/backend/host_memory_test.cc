#include "backend/cpu/host_memory.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"

namespace headcount {
namespace {

class HostMemoryTest : public testing::Test {
 protected:
  HostMemoryTest()
      : root_(std::filesystem::path(testing::TempDir()) / "host_memory") {
    std::filesystem::remove_all(root_);
    Write("proc/meminfo",
          "MemTotal:       16000 kB\nMemFree:  1000 kB\n"
          "MemAvailable:    8000 kB\nBuffers: 9 kB\n");
  }
  ~HostMemoryTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  int64_t Free() const { return FreeHostBytes(root_.string()); }

  const std::filesystem::path root_;
};

TEST_F(HostMemoryTest, IsWhatTheKernelCallsAvailable) {
  EXPECT_EQ(Free(), 8000 * 1024);
}

TEST_F(HostMemoryTest, AControlGroupCanAllowLess) {
  Write("sys/fs/cgroup/memory.max", "3000000\n");
  Write("sys/fs/cgroup/memory.current", "1000000\n");
  EXPECT_EQ(Free(), 2000000);
  Write("sys/fs/cgroup/memory.current", "4000000\n");
  EXPECT_EQ(Free(), 0);
  Write("sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(Free(), 8000 * 1024);
}

}  // namespace
}  // namespace headcount
