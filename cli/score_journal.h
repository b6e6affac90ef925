// Scores that were paid for, on disk, so that a run that was killed goes on
// where it was: JSON lines, appended and flushed one by one.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "prune/gate_scorer.h"

namespace headcount {

// An example under all settings of one question.
struct ExampleScores {
  Outcome dense;
  std::vector<Outcome> settings;
};

class ScoreJournal {
 public:
  // Reads what `path` holds, which may be nothing yet. `run` identifies
  // what scores depend on but the settings, as far as it is known (RunHash): a
  // journal of another run is FailedPrecondition, and so is a file that is no
  // journal; both stay as they are. A last line that was cut off is dropped. An
  // empty path: nothing is kept.
  static absl::StatusOr<std::unique_ptr<ScoreJournal>> Open(
      const std::string& path, const std::string& run);

  // Null if it is not known. `question` identifies split and settings.
  const ExampleScores* Find(const std::string& question, int64_t example) const;
  absl::Status Add(const std::string& question, int64_t example,
                   const ExampleScores& scores);

  int64_t read() const { return read_; }  // scores found by Open

 private:
  ScoreJournal() = default;
  absl::Status Read(const std::string& path, const std::string& run);
  absl::Status ReadLine(const std::string& line, const std::string& where);

  std::string path_;
  std::ofstream file_;
  std::map<std::pair<std::string, int64_t>, ExampleScores> scores_;
  int64_t read_ = 0;
};

}  // namespace headcount
