#include "server/outbox.h"

#include <string>

#include "gtest/gtest.h"
#include "server/limits.h"

namespace headcount {
namespace {

v1::GenerateResponse MessageOf(size_t bytes) {
  v1::GenerateResponse message;
  message.set_text(std::string(bytes, 'x'));
  return message;
}

TEST(Outbox, GivesBackWhatCameInOrder) {
  Outbox outbox;
  for (const char* text : {"a", "b", "c"}) {
    v1::GenerateResponse message;
    message.set_text(text);
    EXPECT_TRUE(outbox.Push(std::move(message), absl::UnixEpoch()));
  }
  EXPECT_EQ(outbox.Pop().text(), "a");
  EXPECT_EQ(outbox.Pop().text(), "b");
  EXPECT_FALSE(outbox.empty());
  EXPECT_EQ(outbox.Pop().text(), "c");
  EXPECT_TRUE(outbox.empty());
  EXPECT_EQ(outbox.bytes(), 0);
}

TEST(Outbox, HasRoomForABurst) {
  Outbox outbox;
  const absl::Time now = absl::UnixEpoch();
  int64_t pushed = 0;
  while (outbox.Push(MessageOf(1000), now)) pushed += 1000;
  EXPECT_GE(pushed, kOutboxHardBytes * 99 / 100);
  EXPECT_LE(outbox.bytes(), kOutboxHardBytes);
}

// Else an answer would end well, but without its end.
TEST(Outbox, AlwaysHasRoomForTheLastMessage) {
  Outbox outbox;
  const absl::Time start = absl::UnixEpoch();
  ASSERT_TRUE(outbox.Push(MessageOf(kOutboxBytes), start));
  while (outbox.Push(MessageOf(1), start)) {
  }
  const absl::Time late = start + 10 * kOutboxFullTime;
  ASSERT_FALSE(outbox.Push(MessageOf(1), late));
  outbox.PushLast(MessageOf(3));
  v1::GenerateResponse last;
  while (!outbox.empty()) last = outbox.Pop();
  EXPECT_EQ(last.text(), "xxx");
  EXPECT_EQ(outbox.bytes(), 0);
}

TEST(Outbox, RefusesAReaderThatStaysSlow) {
  Outbox outbox;
  const absl::Time start = absl::UnixEpoch();
  ASSERT_TRUE(outbox.Push(MessageOf(kOutboxBytes), start));
  EXPECT_TRUE(outbox.Push(MessageOf(10), start + kOutboxFullTime));
  EXPECT_FALSE(outbox.Push(MessageOf(10),
                           start + kOutboxFullTime + absl::Milliseconds(1)));
}

TEST(Outbox, ForgivesAReaderThatCatchesUp) {
  Outbox outbox;
  const absl::Time start = absl::UnixEpoch();
  ASSERT_TRUE(outbox.Push(MessageOf(kOutboxBytes), start));
  outbox.Pop();
  EXPECT_TRUE(outbox.Push(MessageOf(10), start + 10 * kOutboxFullTime));
  ASSERT_TRUE(
      outbox.Push(MessageOf(kOutboxBytes), start + 10 * kOutboxFullTime));
  outbox.Clear();
  EXPECT_TRUE(outbox.Push(MessageOf(10), start + 30 * kOutboxFullTime));
}

}  // namespace
}  // namespace headcount
