#include "server/errors.h"

#include <string>

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "server/admission.h"
#include "server/limits.h"

namespace headcount {
namespace {

template <typename T>
T DetailIn(const grpc::Status& status) {
  google::rpc::Status rpc;
  EXPECT_TRUE(rpc.ParseFromString(status.error_details()));
  EXPECT_EQ(rpc.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(rpc.message(), status.error_message());
  T detail;
  for (const google::protobuf::Any& any : rpc.details()) {
    if (any.Is<T>()) any.UnpackTo(&detail);
  }
  return detail;
}

TEST(Errors, NameTheField) {
  const grpc::Status status = ToGrpcStatus(FieldError("stop[2]", "too long"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "stop[2]: too long");
  const auto bad_request = DetailIn<google::rpc::BadRequest>(status);
  ASSERT_EQ(bad_request.field_violations_size(), 1);
  EXPECT_EQ(bad_request.field_violations(0).field(), "stop[2]");
  EXPECT_EQ(bad_request.field_violations(0).description(), "too long");
  const auto info = DetailIn<google::rpc::ErrorInfo>(status);
  EXPECT_EQ(info.reason(), "INVALID_REQUEST");
  EXPECT_EQ(info.domain(), "headcount.dev");
}

TEST(Errors, SayWhenToComeBack) {
  const absl::Status status = WithRetry(
      WithReason(absl::ResourceExhaustedError("full"), Reason::kQueueFull),
      absl::Milliseconds(1250));
  EXPECT_EQ(ReasonOf(status), Reason::kQueueFull);
  EXPECT_EQ(RetryDelayOf(status), absl::Milliseconds(1250));
  const auto retry = DetailIn<google::rpc::RetryInfo>(ToGrpcStatus(status));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 250000000);
}

TEST(Errors, RepeatOnlyNamesThatModelsCanHave) {
  const grpc::Status known = ToGrpcStatus(UnknownModelError("llama"));
  EXPECT_EQ(known.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(DetailIn<google::rpc::ResourceInfo>(known).resource_name(),
            "llama");
  const grpc::Status hostile =
      ToGrpcStatus(UnknownModelError("../../etc/passwd"));
  EXPECT_EQ(hostile.error_message().find("passwd"), std::string::npos);
  EXPECT_EQ(hostile.error_details().find("passwd"), std::string::npos);
}

TEST(Errors, AlwaysHaveAReason) {
  for (const absl::Status& status :
       {absl::InternalError("x"), absl::CancelledError("x"),
        absl::DeadlineExceededError("x"), absl::UnavailableError("x")}) {
    EXPECT_NE(DetailIn<google::rpc::ErrorInfo>(ToGrpcStatus(status)).reason(),
              "");
  }
}

TEST(QueueDelay, IsTheTimeThatTheQueueTakes) {
  EngineSnapshot snapshot;
  snapshot.queued_tokens = 500;
  snapshot.tokens_per_second = 250;
  EXPECT_EQ(QueueDelay(snapshot), absl::Seconds(2));
  snapshot.queued_tokens = 0;
  EXPECT_EQ(QueueDelay(snapshot), kMinRetryDelay);
  snapshot.queued_tokens = int64_t{1} << 40;
  EXPECT_EQ(QueueDelay(snapshot), kMaxRetryDelay);
  snapshot.tokens_per_second = 0;
  EXPECT_EQ(QueueDelay(snapshot), absl::Seconds(1));
}

}  // namespace
}  // namespace headcount
