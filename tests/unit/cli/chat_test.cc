#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include "fake_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "recorder.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class ChatTest : public testing::Test {
 protected:
  ChatTest() {
    v1::GenerateResponse answer;
    answer.set_text("Aye");
    server_.responses = {answer};
    answer.set_text(" aye");
    answer.set_finish_reason(v1::FINISH_REASON_STOP);
    server_.responses.push_back(answer);
  }

  int Run(const std::string& input, std::vector<std::string> args = {}) {
    recorder_.in.clear();
    recorder_.in.str(input);
    args.insert(args.begin(), "chat");
    args.insert(args.end(), {"--address", server_.address()});
    return recorder_.Run(args);
  }
  std::string out() { return recorder_.out.str(); }
  std::string err() { return recorder_.err.str(); }

  // What was said when the last answer was asked for: "user: Hello".
  std::vector<std::string> LastConversation() {
    std::vector<std::string> lines;
    const v1::GenerateRequest request = server_.last_generate();
    for (const v1::Message& message : request.conversation().messages()) {
      const std::string who =
          message.role() == v1::Message::ROLE_SYSTEM ? "system: "
          : message.role() == v1::Message::ROLE_USER ? "user: "
                                                     : "assistant: ";
      lines.push_back(who + message.content());
    }
    return lines;
  }

  FakeServer server_;
  Recorder recorder_;
};

TEST_F(ChatTest, EveryLineIsATurnAndRemembersTheOnesBefore) {
  EXPECT_EQ(Run("Ahoy\n\n  \nSail?"), 0) << err();
  EXPECT_EQ(out(), "Aye aye\nAye aye\n");
  EXPECT_THAT(err(), IsEmpty());
  EXPECT_THAT(LastConversation(),
              ElementsAre("user: Ahoy", "assistant: Aye aye", "user: Sail?"));
}

TEST_F(ChatTest, SendsOnlyWhatWasAskedFor) {
  EXPECT_EQ(Run("Ahoy\n", {"tiny", "--system", "Be a pirate", "--max-tokens",
                           "9", "--temperature", "0.5", "--seed", "7"}),
            0);
  EXPECT_THAT(LastConversation(),
              ElementsAre("system: Be a pirate", "user: Ahoy"));
  const v1::GenerateRequest request = server_.last_generate();
  EXPECT_EQ(request.model(), "tiny");
  EXPECT_EQ(request.max_tokens(), 9);
  EXPECT_EQ(request.sampling().temperature(), 0.5f);
  EXPECT_EQ(request.sampling().seed(), 7);
  EXPECT_FALSE(request.sampling().has_top_p());

  EXPECT_EQ(Run("Ahoy\n"), 0);
  EXPECT_FALSE(server_.last_generate().has_max_tokens());
}

TEST_F(ChatTest, CommandsBeginWithASlash) {
  EXPECT_EQ(Run("one\n/reset\ntwo\n"), 0);
  EXPECT_THAT(LastConversation(), ElementsAre("user: two"));
  EXPECT_EQ(Run("one\n/system Be brief.\ntwo\n"), 0);
  EXPECT_THAT(LastConversation(),
              ElementsAre("system: Be brief.", "user: two"));
  EXPECT_EQ(Run("/system\n//etc\n/exit\nnever\n", {"--system", "x"}), 0);
  EXPECT_THAT(LastConversation(), ElementsAre("user: /etc"));
  EXPECT_EQ(Run("/help\n/rest\n"), 0);
  EXPECT_THAT(err(), HasSubstr("/system TEXT"));
  EXPECT_THAT(err(), HasSubstr("There is no '/rest'"));
}

TEST_F(ChatTest, AnErrorEndsAScriptButNotATerminal) {
  server_.status = {grpc::StatusCode::FAILED_PRECONDITION, "no template"};
  server_.responses.clear();
  EXPECT_EQ(Run("one\ntwo\n"), 1);
  EXPECT_EQ(err(), "headcount: no template\n");

  recorder_.err.str("");
  recorder_.console.in_is_terminal = true;
  server_.status = grpc::Status::OK;
  server_.model.set_name("tiny");
  EXPECT_EQ(Run("one\n"), 0);
  EXPECT_EQ(err(), "This is tiny; /help explains, Ctrl-D leaves.\n> > \n");
  recorder_.err.str("");
  server_.status = {grpc::StatusCode::UNAVAILABLE, "draining"};
  EXPECT_EQ(Run("one\n"), 3);
  EXPECT_THAT(err(), HasSubstr("draining"));
}

TEST_F(ChatTest, CtrlCStopsTheAnswerOnly) {
  server_.on_endless_generate = [] { kill(getpid(), SIGINT); };
  EXPECT_EQ(Run("one\ntwo\n"), 0);
  EXPECT_EQ(err(), "(stopped)\n(stopped)\n");
  // What had arrived of the first answer, if anything, was said.
  const std::vector<std::string> said = LastConversation();
  EXPECT_EQ(said.back(), "user: two");
  if (said.size() > 1) {
    ASSERT_EQ(said.size(), 3);
    EXPECT_EQ(said[0], "user: one");
    EXPECT_THAT(said[1], StartsWith("assistant: Aye"));
  }
}

TEST_F(ChatTest, SaysWhenAnAnswerWasCutOff) {
  server_.responses.back().set_finish_reason(v1::FINISH_REASON_LENGTH);
  server_.responses.back().mutable_usage()->set_generated_tokens(4);
  EXPECT_EQ(Run("one\n"), 0);
  EXPECT_EQ(err(), "(cut off: 4 tokens)\n");
}

}  // namespace
}  // namespace headcount
