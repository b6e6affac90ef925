#include "server/log.h"

#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

absl::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

std::string JsonString(absl::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

// As it is where a reader can see its end, else quoted with escapes.
std::string TextValue(absl::string_view value) {
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (!absl::ascii_isgraph(byte) || c == '"' || c == '=' || c == '\\') {
      return absl::StrCat("\"", absl::CHexEscape(value), "\"");
    }
  }
  return value.empty() ? "\"\"" : std::string(value);
}

std::string Timestamp(absl::Time now) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", now, absl::UTCTimeZone());
}

}  // namespace

LogFields& LogFields::Add(absl::string_view key, absl::string_view value) {
  fields_.push_back({std::string(key), std::string(value), false});
  return *this;
}

LogFields& LogFields::Add(absl::string_view key, int64_t value) {
  fields_.push_back({std::string(key), absl::StrCat(value), true});
  return *this;
}

LogFields& LogFields::AddMs(absl::string_view key, absl::Duration value) {
  fields_.push_back({std::string(key),
                     absl::StrFormat("%.3f", absl::ToDoubleMilliseconds(value)),
                     true});
  return *this;
}

std::string FormatLogLine(LogFormat format, absl::Time now, LogLevel level,
                          absl::string_view message, const LogFields& fields) {
  const bool json = format == LogFormat::kJson;
  std::string line =
      json ? absl::StrCat("{\"ts\":\"", Timestamp(now), "\",\"level\":\"",
                          LevelName(level), "\",\"msg\":", JsonString(message))
           : absl::StrCat(Timestamp(now), " ", LevelName(level), " ", message);
  for (const LogFields::Field& field : fields.fields_) {
    if (json) {
      absl::StrAppend(&line, ",", JsonString(field.key), ":",
                      field.is_number ? field.value : JsonString(field.value));
    } else {
      absl::StrAppend(&line, " ", field.key, "=", TextValue(field.value));
    }
  }
  absl::StrAppend(&line, json ? "}\n" : "\n");
  return line;
}

LogFields RequestLogFields(const RequestLine& line) {
  LogFields fields;
  fields.Add("method", line.method);
  if (!line.model.empty()) fields.Add("model", line.model);
  fields.Add("request_id", line.request_id);
  if (!line.trace_id.empty()) fields.Add("trace_id", line.trace_id);
  if (!line.outcome.empty()) fields.Add("outcome", line.outcome);
  fields.Add("code", line.code)
      .Add("prompt_tokens", line.prompt_tokens)
      .Add("cached_tokens", line.cached_tokens)
      .Add("generated_tokens", line.generated_tokens);
  if (line.queue.has_value()) fields.AddMs("queue_ms", *line.queue);
  if (line.time_to_first_token.has_value()) {
    fields.AddMs("ttft_ms", *line.time_to_first_token);
  }
  fields.AddMs("total_ms", line.total);
  return fields;
}

void Log::Info(absl::string_view message, const LogFields& fields) const {
  Write(LogLevel::kInfo, message, fields);
}

void Log::Warning(absl::string_view message, const LogFields& fields) const {
  Write(LogLevel::kWarning, message, fields);
}

void Log::Error(absl::string_view message, const LogFields& fields) const {
  Write(LogLevel::kError, message, fields);
}

void Log::Request(const RequestLine& line) const {
  Write(LogLevel::kInfo, "request", RequestLogFields(line));
}

void Log::Write(LogLevel level, absl::string_view message,
                const LogFields& fields) const {
  if (level < least_) return;
  const std::string line =
      FormatLogLine(format_, clock_->Now(), level, message, fields);
  // stdio locks stderr for the whole call.
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace headcount
