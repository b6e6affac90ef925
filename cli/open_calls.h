// The calls of a command that are in flight, so that Ctrl-C can end them.
//
//   OpenCalls calls;
//   const Interrupt interrupt([&calls] { calls.CancelAll(); });
//   OpenCalls::Call call(&calls, client);
//   stub->Classify(call.context(), request, &response);
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "base/mutex.h"
#include "cli/client.h"
#include "grpcpp/client_context.h"

namespace headcount {

// Thread-safe. Outlives its calls.
class OpenCalls {
 public:
  // One call: a context with the client's deadline.
  class Call {
   public:
    Call(OpenCalls* calls, const Client& client);
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call();

    grpc::ClientContext* context() { return &context_; }

   private:
    OpenCalls* const calls_;
    grpc::ClientContext context_;
  };

  // Cancels what is open, and from now on every call when it is made.
  void CancelAll();

 private:
  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_set<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace headcount
