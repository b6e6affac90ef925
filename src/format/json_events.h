// JSON as a stream of events: what the tree of json.h and the header of a
// safetensors file are read from, so that both refuse the same texts.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace headcount {

// A reader overrides the events (null, key, start_object, ...) and ends the
// walk with `return Fail("...")`. The walk keeps no stack but one bit per open
// bracket, whatever the text.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  // One walk per object. InvalidArgument, starting with `what`, when `text` is
  // not one JSON value or an event failed.
  absl::Status Walk(std::string_view text, std::string_view what);

 protected:
  // Always false, which ends the walk.
  bool Fail(const std::string& message);

 private:
  bool binary(binary_t&) final;  // not in a text
  bool parse_error(size_t position, const std::string& last_token,
                   const nlohmann::json::exception& error) final;

  std::string what_;
  absl::Status status_;
};

}  // namespace headcount
