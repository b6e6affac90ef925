// Small texts: names, addresses, log lines, limits.
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/time/civil_time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/call_record.h"
#include "server/limits.h"
#include "server/listen_address.h"
#include "server/log.h"
#include "server/nearest_name.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

TEST(NearestName, FindsWhatWasMeant) {
  const std::vector<std::string> names = {"listen", "threads", "kv_pool"};
  EXPECT_EQ(NearestName("lisen", names), "listen");
  EXPECT_EQ(NearestName("kvpool", names), "kv_pool");
  EXPECT_EQ(NearestName("thread", names), "threads");
  EXPECT_EQ(NearestName("models", names), "");
  EXPECT_EQ(NearestName(std::string(1000, 'x'), names), "");
}

TEST(ListenAddress, IsReadAndWritten) {
  for (const char* text : {"127.0.0.1:50051", "[::1]:0", "localhost:65535"}) {
    const absl::StatusOr<ListenAddress> address = ParseListenAddress(text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->ToString(), text);
  }
  for (const char* text :
       {"", ":", ":80", "host", "host:", "host:x", "host:65536", "host:-1",
        "::1:80", "[]:80", "unix:/tmp/x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseListenAddress(text).status()))
        << text;
  }
}

TEST(ListenAddress, ThatIsNotOursIsRefused) {
  // TEST-NET-1 of RFC 5737.
  const absl::Status status = CheckListenAddress({"192.0.2.1", 0}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
}

TEST(LogLine, HasTheFieldsOfARequest) {
  const absl::Time now = absl::FromCivil(absl::CivilSecond(2026, 1, 2, 3, 4, 5),
                                         absl::UTCTimeZone()) +
                         absl::Milliseconds(678);
  RequestLine line;
  line.method = "Generate";
  line.model = "mailroom";
  line.request_id = "abc";
  line.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
  line.outcome = "stop";
  line.code = "OK";
  line.prompt_tokens = 7;
  line.generated_tokens = 3;
  line.queue = absl::Microseconds(1500);
  line.time_to_first_token = absl::Milliseconds(20);
  line.total = absl::Milliseconds(45);
  const LogFields fields = RequestLogFields(line);
  EXPECT_EQ(
      FormatLogLine(LogFormat::kText, now, LogLevel::kInfo, "request", fields),
      "2026-01-02T03:04:05.678Z info request method=Generate "
      "model=mailroom request_id=abc "
      "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 outcome=stop code=OK "
      "prompt_tokens=7 cached_tokens=0 generated_tokens=3 queue_ms=1.500 "
      "ttft_ms=20.000 total_ms=45.000\n");
  const std::string json =
      FormatLogLine(LogFormat::kJson, now, LogLevel::kInfo, "request", fields);
  EXPECT_EQ(json.find('\n'), json.size() - 1);
  EXPECT_EQ(nlohmann::json::parse(json), nlohmann::json::parse(R"({
      "ts": "2026-01-02T03:04:05.678Z", "level": "info", "msg": "request",
      "method": "Generate", "model": "mailroom", "request_id": "abc",
      "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "outcome": "stop",
      "code": "OK", "prompt_tokens": 7, "cached_tokens": 0, "generated_tokens": 3,
      "queue_ms": 1.5, "ttft_ms": 20.0, "total_ms": 45.0})"));
}

TEST(LogLine, CannotBeForgedByAValue) {
  const LogFields fields =
      LogFields().Add("path", "a b\n\"c\"=\xff").Add("empty", "");
  const std::string text = FormatLogLine(LogFormat::kText, absl::UnixEpoch(),
                                         LogLevel::kError, "x", fields);
  EXPECT_EQ(text,
            "1970-01-01T00:00:00.000Z error x "
            "path=\"a b\\n\\\"c\\\"=\\xff\" empty=\"\"\n");
  const std::string json = FormatLogLine(LogFormat::kJson, absl::UnixEpoch(),
                                         LogLevel::kError, "x", fields);
  EXPECT_EQ(json.find('\n'), json.size() - 1);
  EXPECT_EQ(nlohmann::json::parse(json)["path"], "a b\n\"c\"=\xef\xbf\xbd");
}

TEST(Traceparent, GivesItsTraceId) {
  const std::string id = "4bf92f3577b34da6a3ce929d0e0e4736";
  EXPECT_EQ(TraceIdOf("00-" + id + "-00f067aa0ba902b7-01"), id);
  EXPECT_EQ(TraceIdOf("01-" + id + "-00f067aa0ba902b7-01"), "");
  EXPECT_EQ(TraceIdOf("00-" + id + "-00f067aa0ba902b7"), "");
  EXPECT_EQ(TraceIdOf("00-" + id + "-00F067AA0BA902B7-01"), "");
  EXPECT_EQ(TraceIdOf("00-00000000000000000000000000000000-"
                      "00f067aa0ba902b7-01"),
            "");
}

// A client hangs up by its own clock, which cancels the call here first.
TEST(CallRecord, TakesACancelJustBeforeTheDeadlineForTheDeadline) {
  const absl::Time arrival = absl::UnixEpoch() + absl::Hours(1);
  const auto out_of_time = [&](absl::Duration after, absl::Duration timeout) {
    return IsOutOfTime(arrival + after, arrival, arrival + timeout);
  };
  EXPECT_TRUE(out_of_time(absl::Milliseconds(100), absl::Milliseconds(100)));
  EXPECT_TRUE(out_of_time(absl::Milliseconds(81), absl::Milliseconds(100)));
  EXPECT_FALSE(out_of_time(absl::Milliseconds(75), absl::Milliseconds(100)));
  EXPECT_TRUE(out_of_time(absl::Milliseconds(59'400), absl::Minutes(1)));
  EXPECT_FALSE(out_of_time(absl::Milliseconds(59'300), absl::Minutes(1)));
}

TEST(CallRecord, KnowsWhoIsOnThisMachine) {
  for (const char* peer :
       {"ipv4:127.0.0.1:5000", "ipv4:127.8.8.8:1", "ipv6:[::1]:5000",
        "ipv6:%5B::1%5D:5000", "unix:/tmp/socket"}) {
    EXPECT_TRUE(IsLocalPeer(peer)) << peer;
  }
  for (const char* peer :
       {"ipv4:10.0.0.127:5000", "ipv4:12.7.0.1:1", "ipv6:%5B::1:2%5D:5000",
        "ipv6:[::12]:1", "", "dns:127.0.0.1"}) {
    EXPECT_FALSE(IsLocalPeer(peer)) << peer;
  }
}

TEST(CallRecord, LetsWhomTheConfigurationSaysChangeWhatIsServed) {
  const std::string here = "ipv4:127.0.0.1:5000";
  const std::string elsewhere = "ipv4:10.0.0.1:5000";
  EXPECT_TRUE(CheckAdmin(Admin::kLocal, here).ok());
  EXPECT_TRUE(CheckAdmin(Admin::kAny, here).ok());
  EXPECT_TRUE(CheckAdmin(Admin::kAny, elsewhere).ok());
  const struct {
    Admin admin;
    std::string peer;
    std::string key;
  } refused[] = {{Admin::kLocal, elsewhere, "`admin: any`"},
                 {Admin::kOff, elsewhere, "`admin: off`"},
                 {Admin::kOff, here, "`admin: off`"},
                 {Admin::kOff, "unix:/tmp/socket", "`admin: off`"}};
  for (const auto& [admin, peer, key] : refused) {
    const absl::Status status = CheckAdmin(admin, peer);
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << peer;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(key));
    EXPECT_EQ(ReasonOf(status), Reason::kNotAllowed);
  }
}

TEST(CallRecord, ATenantIsAWord) {
  EXPECT_TRUE(IsTenant(""));
  EXPECT_TRUE(IsTenant("team-a.b_1"));
  EXPECT_TRUE(IsTenant(std::string(64, 'x')));
  EXPECT_FALSE(IsTenant(std::string(65, 'x')));
  EXPECT_FALSE(IsTenant("a b"));
  EXPECT_FALSE(IsTenant("a/b"));
}

TEST(RequestId, IsALabelAndNothingElse) {
  EXPECT_TRUE(IsRequestId("a-1/b.c:d_e"));
  EXPECT_TRUE(IsRequestId(std::string(64, 'x')));
  EXPECT_FALSE(IsRequestId(""));
  EXPECT_FALSE(IsRequestId(std::string(65, 'x')));
  EXPECT_FALSE(IsRequestId("a b"));
  EXPECT_FALSE(IsRequestId("a\"b"));
}

// HEADCOUNT_WRITE_DOCS=1 makes the file anew.
TEST(Limits, AreThoseOfTheDocumentation) {
  const std::string path = HEADCOUNT_SOURCE_DIR "/docs/limits.md";
  if (std::getenv("HEADCOUNT_WRITE_DOCS") != nullptr) {
    std::ofstream(path) << LimitsMarkdown();
  }
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(text, LimitsMarkdown());
}

}  // namespace
}  // namespace headcount
