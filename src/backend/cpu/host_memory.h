// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <string>

namespace headcount {

// What the kernel calls available, or less where a control group (cgroup v2, as
// a container has one) allows less. `root` is before /proc and /sys.
int64_t FreeHostBytes(const std::string& root = "");

}  // namespace headcount
