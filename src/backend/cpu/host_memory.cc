#include "backend/cpu/host_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

namespace headcount {
namespace {

// MemAvailable of /proc/meminfo, in kiB there.
std::optional<int64_t> AvailableBytes(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  std::string key;
  while (file >> key) {
    int64_t kib = 0;
    if (key == "MemAvailable:" && file >> kib) return kib * 1024;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

// A file of one number; "max" is none.
std::optional<int64_t> NumberIn(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

}  // namespace

int64_t FreeHostBytes(const std::string& root) {
  int64_t bytes = AvailableBytes(root).value_or(
      static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) *
      static_cast<int64_t>(sysconf(_SC_PAGESIZE)));
  const std::string group = root + "/sys/fs/cgroup/memory.";
  const std::optional<int64_t> most = NumberIn(group + "max");
  if (most) {
    bytes = std::min(bytes, *most - NumberIn(group + "current").value_or(0));
  }
  return std::max<int64_t>(bytes, 0);
}

}  // namespace headcount
