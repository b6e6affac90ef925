#include "server/submission.h"

#include <utility>

#include "absl/strings/string_view.h"

namespace headcount {

absl::Status Submission::Submit(Request request,
                                std::shared_ptr<RequestSink> sink,
                                absl::string_view field) {
  const absl::StatusOr<RequestId> id =
      admission_->Submit(std::move(request), std::move(sink), field);
  if (!id.ok()) return id.status();
  bool abandoned = false;
  {
    MutexLock lock(&mutex_);
    submitted_ = true;
    id_ = *id;
    abandoned = abandoned_;
  }
  if (abandoned) admission_->Cancel(*id);
  return absl::OkStatus();
}

void Submission::Abandon() {
  RequestId id = 0;
  {
    MutexLock lock(&mutex_);
    if (std::exchange(abandoned_, true) || !submitted_) return;
    id = id_;
  }
  admission_->Cancel(id);
}

}  // namespace headcount
