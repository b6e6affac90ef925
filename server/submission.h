// One request of a call inside the engine, which can be given up at any time,
// even before its id is known.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "engine/request.h"
#include "server/admission.h"

namespace headcount {

// Thread-safe.
class Submission {
 public:
  explicit Submission(Admission* admission) : admission_(admission) {}

  // Once. As Admission::Submit.
  absl::Status Submit(Request request, std::shared_ptr<RequestSink> sink,
                      absl::string_view field);

  // The engine ends the request soon, if it has not ended yet.
  void Abandon();

 private:
  Admission* const admission_;
  Mutex mutex_;
  bool submitted_ ABSL_GUARDED_BY(mutex_) = false;
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
  RequestId id_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace headcount
