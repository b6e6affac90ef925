// One call from arrival to status: its id and trace, its counts, its log line.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/request.h"
#include "grpcpp/grpcpp.h"
#include "headcount/v1/inference.pb.h"
#include "server/config.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/rpc_method.h"
#include "server/serving.h"

namespace headcount {

// The trace id of a W3C `traceparent` (00-<32 hex>-<16 hex>-<2 hex>); empty if
// it is not one.
absl::string_view TraceIdOf(absl::string_view traceparent);

// Whether a client's x-request-id is taken over: 1 to kMaxRequestIdBytes
// letters, digits and "._:/-".
bool IsRequestId(absl::string_view id);

// Whether it can be in x-headcount-tenant: at most kMaxTenantBytes letters,
// digits and "._-"; empty is the tenant without a name.
bool IsTenant(absl::string_view tenant);

// Whether gRPC's name of a peer, such as "ipv4:127.0.0.1:1234", is of this
// machine.
bool IsLocalPeer(absl::string_view peer);

// PermissionDenied, naming the key `admin`, unless that lets `peer`, gRPC's
// name of a client, change what is served.
absl::Status CheckAdmin(Admin admin, absl::string_view peer);

// Whether a client that hangs up at `now` does so because its time is over. By
// its own clock it may be, a little before it is by ours: the call took time to
// arrive, and gRPC rounds a timeout up by as much as 1 % to send it.
bool IsOutOfTime(absl::Time now, absl::Time arrival, absl::Time deadline);

// How an ending looks to the client; OK for stop and length.
absl::Status StatusOf(const Ending& ending, const Admission& admission);

// Not thread-safe: the call that owns it orders its uses.
class CallRecord {
 public:
  // Counts the call as started, reads its metadata and puts x-request-id into
  // its initial metadata. `context` outlives Conclude.
  CallRecord(RpcMethod method, grpc::CallbackServerContext* context,
             const Serving* serving);

  const Serving& serving() const { return *serving_; }
  absl::Time arrival() const { return arrival_; }
  // The call's own, or kMaxDeadline after its arrival if that is sooner.
  absl::Time deadline() const { return deadline_; }

  // CheckAdmin for the client of this call.
  absl::Status CheckAdmin() const;

  // Gives the request what it has of the call: deadline and tenant.
  void Complete(Request* request) const;

  // Names the model in the log line, if it is one of the configuration.
  void NameModel(absl::string_view name);

  // The model that the call names, or why it cannot run. From then on counts
  // and the log line are that model's; of one that did not load, the log line.
  absl::StatusOr<std::shared_ptr<const ServedModel>> FindModel(
      absl::string_view name);
  // The same for a call that will run it: Unavailable while the server drains,
  // InvalidArgument for a tenant that cannot be one.
  absl::StatusOr<std::shared_ptr<const ServedModel>> FindModelToRun(
      absl::string_view name);

  // Counts a sequence that the engine has ended. A cancel from a client that is
  // out of time counts as its deadline.
  void AddEnding(Outcome outcome, const Ending& ending);
  // Counts a request that was refused.
  void AddRejection(const absl::Status& status);

  // What the sequences so far have cost.
  v1::Usage Usage() const;

  // Counts the call as handled and returns what to finish it with. Once. The
  // log line is written by WriteLog, since that may block.
  grpc::Status Conclude(const absl::Status& status);
  void WriteLog() const;

 private:
  const Serving* const serving_;
  const RpcMethod method_;
  grpc::CallbackServerContext* const context_;
  const absl::Time arrival_;
  absl::Time deadline_;
  std::string tenant_;
  int model_ = Metrics::kNoModel;
  std::optional<Outcome> outcome_;
  RequestLine line_;
};

}  // namespace headcount
