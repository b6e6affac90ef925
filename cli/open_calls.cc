#include "cli/open_calls.h"

namespace headcount {

OpenCalls::Call::Call(OpenCalls* calls, const Client& client) : calls_(calls) {
  client.Prepare(&context_);
  MutexLock lock(&calls_->mutex_);
  calls_->contexts_.insert(&context_);
  if (calls_->cancelled_) context_.TryCancel();
}

OpenCalls::Call::~Call() {
  MutexLock lock(&calls_->mutex_);
  calls_->contexts_.erase(&context_);
}

void OpenCalls::CancelAll() {
  MutexLock lock(&mutex_);
  cancelled_ = true;
  for (grpc::ClientContext* context : contexts_) context->TryCancel();
}

}  // namespace headcount
