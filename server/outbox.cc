#include "server/outbox.h"

#include <utility>

#include "base/check.h"
#include "server/limits.h"

namespace headcount {

bool Outbox::Push(v1::GenerateResponse message, absl::Time now) {
  const auto bytes = static_cast<int64_t>(message.ByteSizeLong());
  if (bytes_ + bytes > kOutboxHardBytes) return false;
  if (now - full_since_ > kOutboxFullTime) return false;
  Add(std::move(message), bytes);
  if (bytes_ >= kOutboxBytes && full_since_ == absl::InfiniteFuture()) {
    full_since_ = now;
  }
  return true;
}

void Outbox::PushLast(v1::GenerateResponse message) {
  const auto bytes = static_cast<int64_t>(message.ByteSizeLong());
  Add(std::move(message), bytes);
}

void Outbox::Add(v1::GenerateResponse message, int64_t bytes) {
  bytes_ += bytes;
  messages_.push_back({std::move(message), bytes});
}

v1::GenerateResponse Outbox::Pop() {
  CHECK(!messages_.empty());
  Entry entry = std::move(messages_.front());
  messages_.pop_front();
  bytes_ -= entry.bytes;
  if (bytes_ < kOutboxBytes) full_since_ = absl::InfiniteFuture();
  return std::move(entry.message);
}

void Outbox::Clear() {
  messages_.clear();
  bytes_ = 0;
  full_since_ = absl::InfiniteFuture();
}

}  // namespace headcount
