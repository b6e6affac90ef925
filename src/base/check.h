// CHECK: for our own bugs only. What a file or a client can cause is a Status.
//
//   CHECK(index < size()) << "index " << index;
//
// Prints file, line, condition and message to stderr, then aborts. Always on.
#pragma once

#include <sstream>

#include "absl/base/optimization.h"

namespace headcount::internal {

// Collects the message; aborts when destroyed.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  CheckFailure(const CheckFailure&) = delete;
  CheckFailure& operator=(const CheckFailure&) = delete;
  ~CheckFailure();  // does not return

  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

// Gives the streamed expression type void, so that CHECK is a statement.
struct Voidify {
  void operator&(std::ostream&) const {}
};

}  // namespace headcount::internal

#define CHECK(condition)                                                      \
  ABSL_PREDICT_TRUE(condition)                                                \
  ? static_cast<void>(0)                                                      \
  : ::headcount::internal::Voidify() &                                        \
          ::headcount::internal::CheckFailure(__FILE__, __LINE__, #condition) \
              .stream()
