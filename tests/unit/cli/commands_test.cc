#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>

#include "fake_server.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "recorder.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Blocks SIGINT before there is any other thread. gRPC's live on from test to
// test, and one that does not block the signal would let it end the process.
class NoInterrupt : public testing::Environment {
 public:
  void SetUp() override {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &set, nullptr), 0);
  }
};
const testing::Environment* const kNoInterrupt =
    testing::AddGlobalTestEnvironment(new NoInterrupt);

// An environment variable for as long as this object lives.
class ScopedEnv {
 public:
  ScopedEnv(std::string name, const std::string& value)
      : name_(std::move(name)) {
    setenv(name_.c_str(), value.c_str(), 1);
  }
  ~ScopedEnv() { unsetenv(name_.c_str()); }

 private:
  const std::string name_;
};

class CommandsTest : public testing::Test {
 protected:
  int Run(std::vector<std::string> args) {
    args.insert(args.end(), {"--address", server_.address()});
    return recorder_.Run(args);
  }
  std::string out() { return recorder_.out.str(); }
  std::string err() { return recorder_.err.str(); }

  FakeServer server_;
  Recorder recorder_;
};

v1::GenerateResponse Piece(const std::string& text, int32_t token) {
  v1::GenerateResponse response;
  response.set_text(text);
  response.add_tokens()->set_token_id(token);
  return response;
}

std::vector<v1::GenerateResponse> TwoPieces() {
  std::vector<v1::GenerateResponse> pieces = {Piece("Hello", 5),
                                              Piece(" you", 6)};
  pieces.back().set_finish_reason(v1::FINISH_REASON_LENGTH);
  pieces.back().mutable_usage()->set_prompt_tokens(3);
  pieces.back().mutable_usage()->set_generated_tokens(2);
  return pieces;
}

TEST_F(CommandsTest, SuggestsTheNearestCommandAndFlag) {
  EXPECT_EQ(recorder_.Run({"generat", "x"}), 2);
  EXPECT_THAT(err(), HasSubstr("did you mean 'generate'?"));
  EXPECT_EQ(recorder_.Run({"list", "--outptu", "json"}), 2);
  EXPECT_THAT(err(), HasSubstr("did you mean '--output'?"));
  EXPECT_THAT(out(), IsEmpty());
}

TEST_F(CommandsTest, RefusesWrongUsageBeforeAnyCall) {
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{
           {},
           {"generate"},
           {"generate", "x", "--max-tokens", "many"},
           {"generate", "x", "--prompt-ids", "1,2"},
           {"generate", "x", "--logit-bias", "5"},
           {"generate", "x", "--logit-bias", "a:1"},
           {"generate", "x", "--logit-bias", "5:much"},
           {"classify"},
           {"classify", "x", "--batch", "0"},
           {"classify", "x", "--input", "f"},
           {"list", "--output", "yaml"},
           {"list", "--timeout", "5"},
           {"list", "more"},
           {"serve"},
           {"serve", "a", "b", "--mask-file", "m.json"},
           {"serve", "a", "--kv-pool", "much"}}) {
    Recorder recorder;
    EXPECT_EQ(recorder.Run(args), 2) << testing::PrintToString(args);
    EXPECT_THAT(recorder.out.str(), IsEmpty());
    EXPECT_THAT(recorder.err.str(), HasSubstr("--help"));
  }
}

// "Could not convert: --threads = abc" told of a type of C++.
TEST_F(CommandsTest, SaysWhatANumberMayBe) {
  const struct {
    std::vector<std::string> args;
    std::string error;
  } kCases[] = {
      {{"serve", "a", "--threads", "abc"},
       "--threads: 'abc' is not a whole number from 0 to 1024\n"},
      {{"plan", "a", "--keep", "150"},
       "--keep: '150' is not a number from 0 to 100\n"},
      {{"plan", "a", "--step-tokens", "1.5"},
       "--step-tokens: '1.5' is not a whole number from 1 to 65536\n"},
      {{"bench", "--streams", "0"},
       "--streams: '0' is not a whole number from 1 to 1048576\n"},
      {{"bench", "--seed", "-1"},
       "--seed: '-1' is not a whole number from 0 to 18446744073709551615\n"},
      {{"chat", "--temperature", "nan"},
       "--temperature: 'nan' is not a number from 0 to 100\n"},
      {{"generate", "x", "--presence-penalty", "-3"},
       "--presence-penalty: '-3' is not a number from -2 to 2\n"},
      {{"generate", "--prompt-ids", "1,x"},
       "--prompt-ids: 'x' is not a whole number from 0 to 2147483647\n"},
      {{"verify", "a", "--against", "b", "--data", "c", "--max-kl", "-1"},
       "--max-kl: '-1' is not a number from 0 on\n"},
  };
  for (const auto& bad : kCases) {
    Recorder recorder;
    EXPECT_EQ(recorder.Run(bad.args), 2);
    EXPECT_THAT(recorder.err.str(), HasSubstr(bad.error));
  }
}

// It was "--streams N:INT in [1 - 1048576]".
TEST_F(CommandsTest, HelpHasTheRangesOfNumbersInWords) {
  for (const char* command : {"bench", "chat", "classify", "generate", "import",
                              "plan", "prune", "serve", "verify"}) {
    EXPECT_EQ(recorder_.Run({command, "--help"}), 0) << command;
  }
  EXPECT_THAT(out(), HasSubstr("      --streams N  "));
  EXPECT_THAT(out(), HasSubstr("other; 1 to 1048576 [default 1]"));
  for (const char* type : {":INT", ":UINT", ":FLOAT", ":POSITIVE", ":NON"}) {
    EXPECT_THAT(out(), Not(HasSubstr(type)));
  }
}

TEST_F(CommandsTest, AnErrorNamesTheVariableThatItIsFrom) {
  const ScopedEnv threads("HEADCOUNT_THREADS", "abc");
  EXPECT_EQ(recorder_.Run({"serve", "a"}), 2);
  EXPECT_THAT(err(), HasSubstr("--threads: 'abc' is not a whole number from 0 "
                               "to 1024 (from HEADCOUNT_THREADS)\n"));
  for (const std::vector<std::string>& typed :
       {std::vector<std::string>{"--threads", "x"}, {"--threads=x"}}) {
    Recorder recorder;
    std::vector<std::string> args = {"serve", "a"};
    args.insert(args.end(), typed.begin(), typed.end());
    EXPECT_EQ(recorder.Run(args), 2);
    EXPECT_THAT(recorder.err.str(), HasSubstr("'x' is not a whole number"));
    EXPECT_THAT(recorder.err.str(), Not(HasSubstr("HEADCOUNT_THREADS")));
  }
  const ScopedEnv timeout("HEADCOUNT_TIMEOUT", "5");
  Recorder recorder;
  EXPECT_EQ(recorder.Run({"list"}), 2);
  EXPECT_THAT(recorder.err.str(), HasSubstr("(from HEADCOUNT_TIMEOUT)"));
}

TEST_F(CommandsTest, HelpNamesDefaultsAndEnvironment) {
  EXPECT_EQ(recorder_.Run({"generate", "--help"}), 0);
  EXPECT_THAT(out(), HasSubstr("[default 128]"));
  EXPECT_THAT(out(), HasSubstr("[env HEADCOUNT_MAX_TOKENS]"));
  EXPECT_THAT(out(), HasSubstr("Examples:"));
}

TEST_F(CommandsTest, EnvironmentSetsFlagsOfTheChosenCommandOnly) {
  const ScopedEnv address("HEADCOUNT_ADDRESS", server_.address());
  const ScopedEnv tokens("HEADCOUNT_MAX_TOKENS", "7");
  const ScopedEnv batch("HEADCOUNT_BATCH", "no number");
  server_.responses = TwoPieces();
  EXPECT_EQ(recorder_.Run({"generate", "x"}), 0) << err();
  EXPECT_EQ(server_.last_generate().max_tokens(), 7);
  EXPECT_EQ(recorder_.Run({"generate", "x", "--max-tokens", "8"}), 0);
  EXPECT_EQ(server_.last_generate().max_tokens(), 8) << "the flag wins";
}

TEST_F(CommandsTest, GenerateStreamsTextAndKeepsTheRestOffStdout) {
  server_.responses = TwoPieces();
  EXPECT_EQ(Run({"generate", "Say"}), 0);
  EXPECT_EQ(out(), "Hello you\n");
  EXPECT_THAT(err(), HasSubstr("3 prompt tokens, 2 generated (length)"));
}

TEST_F(CommandsTest, GenerateSendsOnlyWhatWasAskedFor) {
  server_.responses = TwoPieces();
  EXPECT_EQ(
      Run({"generate", "Say", "-m", "tiny", "--temperature", "0.5", "--seed",
           "18446744073709551615", "--stop", "a", "--stop", "b c"}),
      0);
  const v1::GenerateRequest request = server_.last_generate();
  EXPECT_EQ(request.model(), "tiny");
  EXPECT_EQ(request.text(), "Say");
  EXPECT_EQ(request.sampling().temperature(), 0.5f);
  EXPECT_EQ(request.sampling().seed(), 18446744073709551615u);
  EXPECT_FALSE(request.sampling().has_top_k());
  EXPECT_THAT(request.stop(), ElementsAre("a", "b c"));
}

TEST_F(CommandsTest, GenerateSendsPenaltiesBiasesAndChoices) {
  server_.responses = TwoPieces();
  EXPECT_EQ(Run({"generate", "Say", "--repetition-penalty", "1.5",
                 "--presence-penalty", "-1", "--frequency-penalty", "0.5",
                 "--logit-bias", "5:-100", "--logit-bias", "6:2.5"}),
            0);
  v1::GenerateRequest request = server_.last_generate();
  EXPECT_EQ(request.sampling().repetition_penalty(), 1.5f);
  EXPECT_EQ(request.sampling().presence_penalty(), -1.0f);
  EXPECT_EQ(request.sampling().frequency_penalty(), 0.5f);
  EXPECT_EQ(request.sampling().logit_bias_size(), 2);
  EXPECT_EQ(request.sampling().logit_bias().at(5), -100.0f);
  EXPECT_EQ(request.sampling().logit_bias().at(6), 2.5f);
  EXPECT_EQ(request.max_tokens(), 128);

  server_.responses.back().set_finish_reason(v1::FINISH_REASON_STOP);
  server_.responses.back().set_choice(1);
  EXPECT_EQ(Run({"generate", "Say", "--choice", "a b", "--choice", " c",
                 "--output", "json"}),
            0);
  request = server_.last_generate();
  EXPECT_THAT(request.choices(), ElementsAre("a b", " c"));
  EXPECT_FALSE(request.has_max_tokens());
}

TEST_F(CommandsTest, GenerateNamesTheChoice) {
  server_.responses = TwoPieces();
  server_.responses.back().set_finish_reason(v1::FINISH_REASON_STOP);
  server_.responses.back().set_choice(1);
  EXPECT_EQ(Run({"generate", "Say", "--choice", "a", "--output", "json"}), 0);
  const Json json = ParseOutput(out());
  EXPECT_EQ(json["finish_reason"], "choice");
  EXPECT_EQ(json["choice"], 1);
}

TEST_F(CommandsTest, GenerateReadsThePromptFromStdinOrAsIds) {
  server_.responses = TwoPieces();
  recorder_.in.str("two\nlines\n");
  EXPECT_EQ(Run({"generate", "-"}), 0);
  EXPECT_EQ(server_.last_generate().text(), "two\nlines\n");
  EXPECT_EQ(Run({"generate", "--prompt-ids", "0,312,3"}), 0);
  EXPECT_THAT(server_.last_generate().tokens().ids(), ElementsAre(0, 312, 3));
}

TEST_F(CommandsTest, GenerateAnswersAsJson) {
  server_.responses = TwoPieces();
  EXPECT_EQ(Run({"generate", "Say", "--output", "json"}), 0);
  const Json json = ParseOutput(out());
  EXPECT_EQ(json["text"], "Hello you");
  EXPECT_EQ(json["token_ids"], Json::array({5, 6}));
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_THAT(err(), IsEmpty());
}

TEST_F(CommandsTest, KeepsATerminalFromObeyingTheModel) {
  server_.responses = {Piece("a\x1b[2Jb\nc", 1)};
  recorder_.console.out_is_terminal = true;
  EXPECT_EQ(Run({"generate", "x"}), 0);
  EXPECT_EQ(out(), "a [2Jb\nc\n");
}

TEST(InterruptTest, CtrlCCancelsTheCallAndExitsWith130) {
  FakeServer server;
  server.on_endless_generate = [] { kill(getpid(), SIGINT); };
  Recorder recorder;
  EXPECT_EQ(recorder.Run({"generate", "x", "--address", server.address()}),
            130);
  EXPECT_THAT(recorder.err.str(), IsEmpty());
}

TEST_F(CommandsTest, ColoursTheNameInAnErrorWhereColoursShow) {
  recorder_.console.err_has_colours = true;
  EXPECT_EQ(recorder_.Run({"lists"}), 2);
  EXPECT_THAT(err(), HasSubstr("\x1b[1;31mheadcount:\x1b[0m there is no"));
}

TEST_F(CommandsTest, SaysWhyAServerRefused) {
  server_.status = {grpc::StatusCode::NOT_FOUND, "no model 'x'; try 'tiny'"};
  EXPECT_EQ(Run({"generate", "x"}), 1);
  EXPECT_EQ(err(), "headcount: no model 'x'; try 'tiny'\n");
}

TEST_F(CommandsTest, ExitsWith3WhereNoServerIs) {
  EXPECT_EQ(recorder_.Run({"list", "--address", "127.0.0.1:1"}), 3);
  EXPECT_THAT(err(), HasSubstr("no answer from 127.0.0.1:1"));
}

TEST_F(CommandsTest, ClassifiesTextsInOrder) {
  EXPECT_EQ(Run({"classify", "you win", "the patch"}), 0);
  EXPECT_EQ(out(),
            "LABEL  PROBABILITY  TEXT\n"
            "spam        0.7500  you win\n"
            "ham         0.7500  the patch\n");
}

TEST_F(CommandsTest, ClassifiesAFileInBatchesAndMeasures) {
  const std::string path = testing::TempDir() + "/cli_mails.jsonl";
  std::ofstream(path) << R"({"label": "spam", "text": "win 1"})"
                      << "\n"
                      << R"({"label": "spam", "text": "lose 2"})"
                      << "\n\n"
                      << R"({"label": "ham", "text": "note 3"})"
                      << "\n";
  EXPECT_EQ(Run({"classify", "--input", path, "--batch", "2", "--summary",
                 "--output", "json"}),
            0)
      << err();
  EXPECT_EQ(server_.classify_requests().size(), 2u);
  const Json json = ParseOutput(out());
  EXPECT_EQ(json["counts"]["ham"], 2);
  EXPECT_EQ(json["summary"]["right"], 2);
  EXPECT_EQ(json["summary"]["total"], 3);
  EXPECT_FALSE(json.contains("results"));
}

TEST_F(CommandsTest, HealthIsAnExitCode) {
  EXPECT_EQ(Run({"health"}), 0);
  EXPECT_EQ(out(), "SERVING\n");
  server_.health = grpc::health::v1::HealthCheckResponse::NOT_SERVING;
  EXPECT_EQ(Run({"health"}), 3);
}

TEST_F(CommandsTest, ListsAndShowsModels) {
  server_.model.set_name("tiny");
  server_.model.set_state(v1::Model::STATE_READY);
  server_.model.set_kv_bytes_per_token(3072);
  EXPECT_EQ(Run({"list"}), 0);
  EXPECT_THAT(out(), HasSubstr("tiny   ready"));
  EXPECT_EQ(Run({"show", "tiny"}), 0);
  EXPECT_THAT(out(), HasSubstr("KV per token  3.0 KiB"));
}

TEST_F(CommandsTest, ListsAndShowsAModelThatDidNotLoad) {
  server_.model.set_name("tiny");
  server_.model.set_state(v1::Model::STATE_FAILED);
  server_.model.set_error("tiny.gguf: tensor 't': overlaps");
  EXPECT_EQ(Run({"list"}), 0);
  EXPECT_THAT(out(), HasSubstr("tiny   failed      -"));
  EXPECT_EQ(Run({"show", "tiny"}), 0);
  EXPECT_THAT(out(), HasSubstr("error  tiny.gguf: tensor 't': overlaps\n"));
  EXPECT_EQ(Run({"show", "tiny", "--output", "json"}), 0);
  EXPECT_THAT(out(), HasSubstr("\"state\": \"failed\""));
}

}  // namespace
}  // namespace headcount
