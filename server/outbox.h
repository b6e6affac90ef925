// What the engine has said and a stream's reader has not yet taken: bounded, so
// that a slow reader costs neither memory nor anyone else's time.
#pragma once

#include <cstdint>
#include <deque>

#include "absl/time/time.h"
#include "headcount/v1/inference.pb.h"

namespace headcount {

// Not thread-safe.
class Outbox {
 public:
  // Takes `message` in. False when the reader is too slow: kOutboxHardBytes
  // would be passed, or there have been kOutboxBytes or more for longer than
  // kOutboxFullTime. Nothing is taken in then.
  [[nodiscard]] bool Push(v1::GenerateResponse message, absl::Time now);

  // Takes the last message in, which is small, in any case: what came before it
  // was taken in, and nothing more comes.
  void PushLast(v1::GenerateResponse message);

  // The oldest message. CHECKs that there is one.
  v1::GenerateResponse Pop();

  void Clear();

  bool empty() const { return messages_.empty(); }
  int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    v1::GenerateResponse message;
    int64_t bytes = 0;
  };

  void Add(v1::GenerateResponse message, int64_t bytes);

  std::deque<Entry> messages_;
  int64_t bytes_ = 0;
  absl::Time full_since_ = absl::InfiniteFuture();
};

}  // namespace headcount
