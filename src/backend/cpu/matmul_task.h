// How MatMul cuts a product into tasks for threads.
#pragma once

#include <cstdint>

namespace headcount {

// The largest task.
inline constexpr int64_t kTaskPanels = 4;
inline constexpr int64_t kTaskRows = 48;
inline constexpr int64_t kAmxTaskRows = 128;

// Rows [row_begin, row_end) of x times panels [panel_begin, panel_end) of W.
struct MatMulTask {
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
};

}  // namespace headcount
