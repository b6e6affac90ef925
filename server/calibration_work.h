// A calibration call as a series of requests of the engine and of messages of
// its stream. What it computes, without threads, engine or gRPC.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "engine/request.h"

namespace headcount {

// A request for the engine.
struct CalibrationPart {
  int64_t id = 0;     // what CalibrationWork::End is told
  std::string field;  // of the call; what a request that cannot run names
  Request request;
};

// Not thread-safe.
template <typename Response>
class CalibrationWork {
 public:
  virtual ~CalibrationWork() = default;

  // The next request; none if there are no more, or none before one of those
  // that run has ended or a message is taken.
  virtual std::optional<CalibrationPart> Begin() = 0;

  // The part ran and ended well. An error ends the call.
  virtual absl::Status End(int64_t id, const Scores& scores) = 0;

  // The next message of the stream, if it can be told. When nothing runs and
  // there is neither a request nor a message, the call is over.
  virtual std::optional<Response> TakeResponse() = 0;
};

}  // namespace headcount
