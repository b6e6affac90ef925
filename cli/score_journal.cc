#include "cli/score_journal.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "cli/output.h"
#include "format/json.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

constexpr char kFormat[] = "headcount-scores/1";

Json OutcomeJson(const Outcome& outcome) {
  return {outcome.kl, outcome.logprob, outcome.right, outcome.label};
}

bool ParseOutcome(const nlohmann::json& json, Outcome* outcome) {
  if (!json.is_array() || json.size() != 4 || !json[0].is_number() ||
      !json[1].is_number() || !json[2].is_boolean() || !json[3].is_string()) {
    return false;
  }
  *outcome = {.kl = json[0].get<double>(),
              .logprob = json[1].get<double>(),
              .right = json[2].get<bool>(),
              .label = json[3].get<std::string>()};
  return true;
}

// A document of one line.
std::string Line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string FirstLine(const std::string& run) {
  return Line({{"format", kFormat}, {"run", run}});
}

}  // namespace

absl::StatusOr<std::unique_ptr<ScoreJournal>> ScoreJournal::Open(
    const std::string& path, const std::string& run) {
  std::unique_ptr<ScoreJournal> journal(new ScoreJournal);
  if (path.empty()) return journal;
  journal->path_ = path;
  if (absl::Status status = journal->Read(path, run); !status.ok()) {
    return status;
  }
  journal->file_.open(path, std::ios::app | std::ios::binary);
  if (!journal->file_) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": cannot be written; name another place with --journal"));
  }
  std::error_code error;
  if (std::filesystem::file_size(path, error) == 0 && !error) {
    journal->file_ << FirstLine(run) << std::flush;
  }
  return journal;
}

absl::Status ScoreJournal::Read(const std::string& path,
                                const std::string& run) {
  const absl::Status foreign = absl::FailedPreconditionError(absl::StrCat(
      path, ": is no journal of scores; name another file with --journal"));
  std::ifstream file(path, std::ios::binary);
  std::string line;
  uintmax_t whole = 0;  // bytes of lines that ended
  for (int number = 1; std::getline(file, line); ++number) {
    if (file.eof()) {  // cut off: no line feed
      // What is cut off is dropped, so it has to be ours.
      if (number == 1 && !FirstLine(run).starts_with(line)) return foreign;
      break;
    }
    const std::string where = absl::StrCat(path, ":", number);
    whole += line.size() + 1;
    if (number > 1) {
      if (absl::Status status = ReadLine(line, where); !status.ok()) {
        return status;
      }
      continue;
    }
    const absl::StatusOr<nlohmann::json> head = ParseJson(line, where);
    if (!head.ok() || !head->is_object() || !head->contains("format") ||
        (*head)["format"] != kFormat || !head->contains("run")) {
      return foreign;
    }
    if ((*head)["run"] != run) {
      return absl::FailedPreconditionError(absl::StrCat(
          path,
          ": belongs to a run with another model, other data or another seed, "
          "or with other --weights or none; delete it, or name another file "
          "with --journal"));
    }
  }
  std::error_code error;
  if (std::filesystem::exists(path, error)) {
    std::filesystem::resize_file(path, whole, error);
  }
  return absl::OkStatus();
}

absl::Status ScoreJournal::ReadLine(const std::string& line,
                                    const std::string& where) {
  const absl::StatusOr<nlohmann::json> json = ParseJson(line, where);
  const absl::Status damaged = absl::DataLossError(
      absl::StrCat(where, ": is damaged; delete the journal to begin again"));
  if (!json.ok() || !json->is_object()) return damaged;
  const auto question = json->find("q");
  const auto example = json->find("e");
  const auto scores = json->find("s");
  if (question == json->end() || !question->is_string() ||
      example == json->end() || !example->is_number_integer() ||
      scores == json->end() || !scores->is_array() || scores->empty()) {
    return damaged;
  }
  ExampleScores entry;
  entry.settings.resize(scores->size() - 1);
  for (size_t i = 0; i < scores->size(); ++i) {
    Outcome& outcome = i == 0 ? entry.dense : entry.settings[i - 1];
    if (!ParseOutcome((*scores)[i], &outcome)) return damaged;
  }
  read_ += static_cast<int64_t>(entry.settings.size());
  scores_[{question->get<std::string>(), example->get<int64_t>()}] =
      std::move(entry);
  return absl::OkStatus();
}

const ExampleScores* ScoreJournal::Find(const std::string& question,
                                        int64_t example) const {
  const auto found = scores_.find({question, example});
  return found == scores_.end() ? nullptr : &found->second;
}

absl::Status ScoreJournal::Add(const std::string& question, int64_t example,
                               const ExampleScores& scores) {
  if (!path_.empty()) {
    Json outcomes = {OutcomeJson(scores.dense)};
    for (const Outcome& outcome : scores.settings) {
      outcomes.push_back(OutcomeJson(outcome));
    }
    file_ << Line({{"q", question}, {"e", example}, {"s", outcomes}})
          << std::flush;
    if (!file_) {
      return absl::UnavailableError(absl::StrCat(
          path_,
          ": writing failed; free space and start again, scores so far "
          "are kept"));
    }
  }
  scores_[{question, example}] = scores;
  return absl::OkStatus();
}

}  // namespace headcount
