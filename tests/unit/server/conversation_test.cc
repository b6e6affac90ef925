#include "server/conversation.h"

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "server/errors.h"
#include "server/limits.h"
#include "server/validation.h"
#include "tests/unit/text/tiny_tokenizer.h"

namespace headcount {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int32_t kStart = 263;
constexpr int32_t kEnd = 264;
// The template of SmolLM2-135M-Instruct, and the default of transformers.
constexpr char kSmolLm2[] =
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788";
constexpr char kChatMl[] =
    "153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3";

ServedModel ModelWith(const std::string& sha256) {
  nlohmann::json json = TinyTokenizerJson();
  for (const auto& [content, id] :
       {std::pair("<|im_start|>", kStart), std::pair("<|im_end|>", kEnd)}) {
    json["added_tokens"].push_back({{"content", content},
                                    {"id", id},
                                    {"special", true},
                                    {"normalized", false}});
  }
  ServedModel model;
  model.name = "tiny";
  model.tokenizer =
      std::make_shared<const Tokenizer>(Tokenizer::Parse(json.dump()).value());
  model.vocab = model.tokenizer->vocab_size();
  model.max_context = 256;
  model.chat = ChatTemplate::Recognise({sha256, "", ""}, *model.tokenizer);
  return model;
}

void Say(v1::Message::Role role, const std::string& content,
         v1::GenerateRequest* request) {
  v1::Message* message = request->mutable_conversation()->add_messages();
  message->set_role(role);
  message->set_content(content);
}

v1::GenerateRequest Ask(const std::string& content) {
  v1::GenerateRequest request;
  Say(v1::Message::ROLE_USER, content, &request);
  return request;
}

// The field that the BadRequest of `status` names.
std::string FieldOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload =
      status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  google::rpc::BadRequest bad_request;
  if (!payload.has_value() ||
      !bad_request.ParseFromString(std::string(*payload))) {
    return "";
  }
  return bad_request.field_violations(0).field();
}

TEST(ConversationTest, BecomesThePromptOfTheTemplate) {
  const absl::StatusOr<Request> request =
      ToEngineRequest(Ask("a"), ModelWith(kChatMl));
  ASSERT_TRUE(request.ok()) << request.status();
  // Nothing goes around it, not even the tokenizer's own BOS.
  EXPECT_THAT(
      request->prompt,
      ElementsAre(kStart, 'u', 's', 'e', 'r', '\n', 'a', kEnd, '\n', kStart,
                  'a', 's', 's', 'i', 's', 't', 'a', 'n', 't', '\n'));
  EXPECT_EQ(request->sampling.max_tokens, 256 - 20);
}

TEST(ConversationTest, TheAnswerEndsWithTheTurn) {
  const ServedModel model = ModelWith(kChatMl);
  v1::GenerateRequest request = Ask("a");
  request.add_stop_token_ids(5);
  EXPECT_THAT(ToEngineRequest(request, model)->sampling.stop_ids,
              ElementsAre(5, kEnd));
  request.set_ignore_eos(true);
  EXPECT_THAT(ToEngineRequest(request, model)->sampling.stop_ids,
              ElementsAre(5));
  request = {};
  request.set_text("a");
  EXPECT_THAT(ToEngineRequest(request, model)->sampling.stop_ids,
              Not(Contains(kEnd)));
}

TEST(ConversationTest, WhatIsWrongIsNamedByItsField) {
  const ServedModel model = ModelWith(kSmolLm2);
  const auto field = [&model](const v1::GenerateRequest& request) {
    return FieldOf(ToEngineRequest(request, model).status());
  };
  v1::GenerateRequest request;
  request.mutable_conversation();
  EXPECT_EQ(field(request), "conversation.messages");

  request = Ask("a");
  Say(v1::Message::ROLE_ASSISTANT, "b", &request);
  EXPECT_EQ(field(request), "conversation.messages[1].role");
  Say(v1::Message::ROLE_UNSPECIFIED, "c", &request);
  EXPECT_EQ(field(request), "conversation.messages[2].role");
  request.mutable_conversation()->mutable_messages(2)->set_role(
      static_cast<v1::Message::Role>(77));
  EXPECT_EQ(field(request), "conversation.messages[2].role");
  EXPECT_EQ(field(Ask("")), "conversation.messages[0].content");

  request = Ask("a");
  for (int i = 0; i < kMaxConversationMessages; ++i) {
    Say(v1::Message::ROLE_USER, "b", &request);
  }
  EXPECT_EQ(field(request), "conversation.messages");
  EXPECT_EQ(field(Ask(std::string(256 * 8 + 1, 'x'))), "conversation.messages");
  EXPECT_EQ(field(Ask(std::string(256, 'x'))), "conversation");
  request = Ask("a");
  request.set_max_tokens(250);
  EXPECT_EQ(field(request), "max_tokens");
}

TEST(ConversationTest, AModelWithoutAKnownTemplateSaysWhy) {
  const std::string sha256(64, 'f');
  absl::Status status = ToEngineRequest(Ask("a"), ModelWith(sha256)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_EQ(ReasonOf(status), Reason::kNotOffered);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("model 'tiny' takes no conversations: its chat "
                        "template, of SHA-256 " +
                        sha256));
  ServedModel none = ModelWith(kChatMl);
  none.chat = ServedModel().chat;
  status = ToEngineRequest(Ask("a"), none).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("it has no chat template"));
}

}  // namespace
}  // namespace headcount
