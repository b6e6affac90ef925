#include "cli/rpc_error.h"

#include "cli/exit_code.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Message(const grpc::Status& status) {
  return std::string(
      FromRpc(status, "mail-0:50051", absl::Seconds(300)).message());
}

grpc::Status WithDetails(grpc::StatusCode code, const std::string& message,
                         const google::protobuf::Message& detail) {
  google::rpc::Status rich;
  rich.set_code(code);
  rich.set_message(message);
  rich.add_details()->PackFrom(detail);
  return {code, message, rich.SerializeAsString()};
}

TEST(RpcErrorTest, NamesTheFieldAndTheFix) {
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("sampling.temperature");
  violation->set_description("must be 0 to 100");
  EXPECT_EQ(
      Message(WithDetails(grpc::StatusCode::INVALID_ARGUMENT, "refused", bad)),
      "refused; sampling.temperature: must be 0 to 100");
  EXPECT_EQ(Message(WithDetails(grpc::StatusCode::INVALID_ARGUMENT,
                                "sampling.temperature: must be 0 to 100", bad)),
            "sampling.temperature: must be 0 to 100");
}

TEST(RpcErrorTest, SaysWhenToTryAgain) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_nanos(250'000'000);
  EXPECT_EQ(Message(WithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                "the queue is full", retry)),
            "the queue is full; try again in 250ms");
}

TEST(RpcErrorTest, TellsAMissingServerFromOneThatRefuses) {
  EXPECT_THAT(
      Message({grpc::StatusCode::UNAVAILABLE, "failed to connect"}),
      AllOf(HasSubstr("no answer from mail-0:50051"), HasSubstr("serve")));
  google::rpc::RetryInfo retry;
  EXPECT_THAT(Message(WithDetails(grpc::StatusCode::UNAVAILABLE,
                                  "the server is draining", retry)),
              Not(HasSubstr("no answer")));
}

TEST(RpcErrorTest, NamesTheTimeoutThatRanOut) {
  EXPECT_EQ(Message({grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"}),
            "not finished within --timeout 5m");
}

TEST(RpcErrorTest, IsOneLineWhateverTheServerSays) {
  EXPECT_EQ(Message({grpc::StatusCode::INTERNAL, "a\n\x1b[2Jb"}), "a  [2Jb");
  EXPECT_EQ(Message({grpc::StatusCode::INTERNAL, "x", "no protobuf"}), "x");
}

TEST(ExitCodeTest, TellsTheShellWhatKindOfErrorItWas) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::CancelledError("")), 130);
}

}  // namespace
}  // namespace headcount
