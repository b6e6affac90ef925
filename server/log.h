// Lines on stderr, as text or JSON: events of the server, and one line for each
// request. Never the text of a prompt or an answer.
//
//   2026-01-02T03:04:05.678Z info serving listen=127.0.0.1:50051
//   2026-01-02T03:04:06.001Z info request method=Generate model=mailroom ...
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace headcount {

enum class LogFormat { kText, kJson };
enum class LogLevel { kInfo, kWarning, kError };

// Keys and values in order; a value that is a number is not quoted in JSON.
class LogFields {
 public:
  LogFields& Add(absl::string_view key, absl::string_view value);
  LogFields& Add(absl::string_view key, int64_t value);
  LogFields& AddMs(absl::string_view key, absl::Duration value);  // 12.345

 private:
  friend std::string FormatLogLine(LogFormat, absl::Time, LogLevel,
                                   absl::string_view, const LogFields&);
  struct Field {
    std::string key;
    std::string value;
    bool is_number = false;
  };
  std::vector<Field> fields_;
};

// One line with its newline: ts, level, msg, then the fields. Values of text
// lines are quoted where they would be ambiguous.
std::string FormatLogLine(LogFormat format, absl::Time now, LogLevel level,
                          absl::string_view message, const LogFields& fields);

// What is told of a request.
struct RequestLine {
  absl::string_view method;
  std::string model;
  std::string request_id;
  std::string trace_id;  // of the caller's traceparent; empty: none
  absl::string_view outcome;
  absl::string_view code;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of those
  int64_t generated_tokens = 0;
  std::optional<absl::Duration> queue;
  std::optional<absl::Duration> time_to_first_token;
  absl::Duration total;
};
LogFields RequestLogFields(const RequestLine& line);

// Thread-safe: each line is one write. May block on a full pipe, so it is not
// for the step thread.
class Log {
 public:
  // Lines below `least` are not written.
  Log(LogFormat format, const Clock* clock, LogLevel least = LogLevel::kInfo)
      : format_(format), clock_(clock), least_(least) {}

  void Info(absl::string_view message, const LogFields& fields = {}) const;
  void Warning(absl::string_view message, const LogFields& fields = {}) const;
  void Error(absl::string_view message, const LogFields& fields = {}) const;
  void Request(const RequestLine& line) const;

 private:
  void Write(LogLevel level, absl::string_view message,
             const LogFields& fields) const;

  const LogFormat format_;
  const Clock* const clock_;
  const LogLevel least_;
};

}  // namespace headcount
