#include "server/process_collector.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "server/family_builder.h"

namespace headcount {
namespace {

std::string ReadText(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The number at `index` of /proc/self/stat, counted from 0 behind the closing
// parenthesis of the command's name (proc(5) counts it as field 3).
std::optional<double> StatField(const std::string& stat, size_t index) {
  const size_t end = stat.rfind(") ");
  if (end == std::string::npos) return std::nullopt;
  const std::vector<std::string> fields = absl::StrSplit(
      stat.substr(end + 2), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  double value = 0;
  if (index >= fields.size() || !absl::SimpleAtod(fields[index], &value)) {
    return std::nullopt;
  }
  return value;
}

// Seconds since the epoch at which the system booted.
std::optional<double> BootTime() {
  const std::string stat = ReadText("/proc/stat");
  for (const absl::string_view line : absl::StrSplit(stat, '\n')) {
    double seconds = 0;
    if (line.substr(0, 6) == "btime " &&
        absl::SimpleAtod(line.substr(6), &seconds)) {
      return seconds;
    }
  }
  return std::nullopt;
}

std::optional<double> OpenFiles() {
  std::error_code error;
  const std::filesystem::directory_iterator files("/proc/self/fd", error);
  if (error) return std::nullopt;
  return static_cast<double>(
      std::distance(files, std::filesystem::directory_iterator()));
}

std::optional<double> MaxFiles() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return std::nullopt;
  return static_cast<double>(limit.rlim_cur);
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessCollector::Collect() const {
  const std::string stat = ReadText("/proc/self/stat");
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  // proc(5): 14 utime, 15 stime, 22 starttime, 23 vsize, 24 rss.
  const std::optional<double> user = StatField(stat, 11);
  const std::optional<double> system = StatField(stat, 12);
  const std::optional<double> start = StatField(stat, 19);
  const std::optional<double> virtual_bytes = StatField(stat, 20);
  const std::optional<double> pages = StatField(stat, 21);
  const std::optional<double> boot = BootTime();

  std::vector<prometheus::MetricFamily> families;
  const auto gauge = [&families](const char* name, const char* help,
                                 std::optional<double> value) {
    if (!value.has_value()) return;
    families.push_back(
        FamilyBuilder::Gauge(name, help).Add({}, *value).Build());
  };
  if (user.has_value() && system.has_value()) {
    families.push_back(FamilyBuilder::Counter("process_cpu_seconds_total",
                                              "User and system CPU time.")
                           .Add({}, (*user + *system) / ticks)
                           .Build());
  }
  gauge("process_resident_memory_bytes", "Resident memory.",
        pages.has_value() ? std::optional(*pages * page) : std::nullopt);
  gauge("process_virtual_memory_bytes", "Virtual memory.", virtual_bytes);
  gauge("process_open_fds", "Open file descriptors.", OpenFiles());
  gauge("process_max_fds", "File descriptors that may be open.", MaxFiles());
  if (start.has_value() && boot.has_value()) {
    gauge("process_start_time_seconds", "Start, in seconds since the epoch.",
          *boot + *start / ticks);
  }
  return families;
}

}  // namespace headcount
