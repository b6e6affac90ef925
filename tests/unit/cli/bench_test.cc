// headcount bench against a server whose answers the test writes.
#include <set>
#include <string>
#include <vector>

#include "fake_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "recorder.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class BenchTest : public testing::Test {
 protected:
  int Run(std::vector<std::string> flags) {
    flags.insert(flags.begin(), "bench");
    flags.insert(flags.end(), {"--address", server_.address()});
    return recorder_.Run(flags);
  }
  std::string out() { return recorder_.out.str(); }
  std::string err() { return recorder_.err.str(); }

  FakeServer server_;
  Recorder recorder_;
};

std::vector<v1::GenerateResponse> TwoTokens() {
  std::vector<v1::GenerateResponse> responses(2);
  for (v1::GenerateResponse& response : responses) {
    response.add_tokens()->set_token_id(5);
  }
  responses.back().set_finish_reason(v1::FINISH_REASON_LENGTH);
  return responses;
}

TEST_F(BenchTest, MeasuresEveryRequestAndHashesTheTokens) {
  server_.model.set_name("tiny");
  server_.model.set_vocab_size(100);
  server_.responses = TwoTokens();
  EXPECT_EQ(Run({"--streams", "3", "--requests", "10", "--prompt-tokens", "4",
                 "--output", "json"}),
            0)
      << err();
  const Json json = ParseOutput(out());
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["requests"], 10);
  EXPECT_GT(json["end_to_end_ms"]["p50"].get<double>(), 0);
  EXPECT_EQ(json["token_hash"].get<std::string>().size(), 16u);
  EXPECT_TRUE(server_.last_generate().ignore_eos());
  EXPECT_EQ(server_.last_generate().tokens().ids_size(), 4);
}

TEST_F(BenchTest, SharesNoPrefixesBetweenRequestsOrRuns) {
  server_.model.set_name("tiny");
  server_.model.set_vocab_size(100);
  server_.responses = TwoTokens();
  std::set<std::string> salts;
  for (const char* const warmup : {"0", "1"}) {
    for (const char* const requests : {"1", "2"}) {
      ASSERT_EQ(Run({"--requests", requests, "--warmup", warmup}), 0) << err();
      salts.insert(server_.last_generate().cache_salt());
    }
  }
  EXPECT_EQ(salts.size(), 4u);
  EXPECT_FALSE(salts.contains(""));
}

TEST_F(BenchTest, EndsWithTheFirstError) {
  server_.model.set_vocab_size(100);
  EXPECT_EQ(Run({"--model", "x", "--warmup", "0"}), 0) << err();
  server_.status = {grpc::StatusCode::RESOURCE_EXHAUSTED, "full"};
  EXPECT_EQ(Run({"--model", "x"}), 1);
  EXPECT_THAT(err(), Not(HasSubstr("cancel")));
}

}  // namespace
}  // namespace headcount
