// Whether the simulator finds the bugs that it is for: seeded ones, of which
// mutants.json has the text. Each runs in a process of its own, which may
// crash.
//
//   sim_mutants_test                  all of them; prints a table
//   sim_mutants_test 17 --seeds 5000  one of them
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/sim/mutant.h"
#include "tests/sim/simulation.h"

namespace headcount::sim {
namespace {

constexpr unsigned kMutantSeconds = 120;

struct Flags {
  int only = 0;  // 0: all
  uint64_t seeds = 1000;
  int64_t steps = 1000;
  bool oracle_only = false;
};

// What a child leaves, in memory that it shares, so that it outlives a crash.
struct Finding {
  uint64_t seeds;  // begun
  bool found;
  char rule[160];
};

void Search(const Flags& flags, Finding* finding) {
  for (uint64_t seed = 0; seed < flags.seeds; ++seed) {
    finding->seeds = seed + 1;
    Simulation simulation(seed,
                          {.steps = flags.steps,
                           .invariants_every = flags.oracle_only ? 0 : 128});
    if (simulation.Run()) continue;
    finding->found = true;
    std::snprintf(finding->rule, sizeof(finding->rule), "%s",
                  simulation.verdict().rule().c_str());
    return;
  }
}

// What a CHECK said, without its path.
std::string AbortMessage(std::FILE* file) {
  std::rewind(file);
  char line[400] = "";
  if (std::fgets(line, sizeof(line), file) == nullptr) return "crashed";
  std::string message = line;
  if (message.back() == '\n') message.pop_back();
  const size_t slash = message.find_last_of('/', message.find(':'));
  return slash == std::string::npos ? message : message.substr(slash + 1);
}

// Runs the mutant in a child. The child's stderr goes to a file.
Finding Hunt(int number, const Flags& flags) {
  void* const shared = mmap(nullptr, sizeof(Finding), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* const finding = static_cast<Finding*>(shared);
  std::FILE* const errors = std::tmpfile();
  const pid_t child = fork();
  if (child == 0) {
    dup2(fileno(errors), STDERR_FILENO);
    alarm(kMutantSeconds);  // a hang is a finding too
    mutant = number;
    Search(flags, finding);
    _exit(0);  // what is broken must not be destroyed
  }
  int status = 0;
  waitpid(child, &status, 0);
  // What was found first counts, not what it leads to.
  if (WIFSIGNALED(status) && !finding->found) {
    finding->found = true;
    const std::string what = WTERMSIG(status) == SIGALRM ? "hangs"
                             : WTERMSIG(status) == SIGABRT
                                 ? AbortMessage(errors)
                                 : "crashes";
    std::snprintf(finding->rule, sizeof(finding->rule), "%s", what.c_str());
  }
  const Finding result = *finding;
  munmap(shared, sizeof(Finding));
  std::fclose(errors);
  return result;
}

int Run(const Flags& flags) {
  std::ifstream file(HEADCOUNT_SOURCE_DIR "/tests/sim/mutants.json");
  const nlohmann::json mutants = nlohmann::json::parse(file);
  int missed = 0;
  std::printf("| | Seeded bug | Breaks | Seeds | Found by |\n|-|-|-|-|-|\n");
  for (int number = 0; number <= static_cast<int>(mutants.size()); ++number) {
    if (flags.only > 0 && number != flags.only) continue;
    const Finding finding = Hunt(number, flags);
    if (number == 0) {
      // The copies without a bug are as good as the originals.
      if (!finding.found) continue;
      std::printf("| 0 | none | | %llu | %s |\n",
                  static_cast<unsigned long long>(finding.seeds), finding.rule);
      return 1;
    }
    const nlohmann::json& its = mutants[static_cast<size_t>(number - 1)];
    if (!finding.found) ++missed;
    std::printf("| %d | %s | %s | %llu | %s |\n", number,
                its["name"].get<std::string>().c_str(),
                its["breaks"].get<std::string>().c_str(),
                static_cast<unsigned long long>(finding.seeds),
                finding.found ? finding.rule : "**not found**");
    std::fflush(stdout);
  }
  std::printf("%d of %d not found\n", missed, static_cast<int>(mutants.size()));
  return missed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace headcount::sim

int main(int argc, char** argv) {
  headcount::sim::Flags flags;
  CLI::App app("Seeds bugs into the scheduler and looks for each.",
               "sim_mutants_test");
  app.add_option("mutant", flags.only, "Its number; 0: all of them");
  app.add_option("--seeds", flags.seeds, "At most, for each bug")
      ->capture_default_str();
  app.add_option("--steps", flags.steps, "Of each seed")->capture_default_str();
  app.add_flag("--oracle_only", flags.oracle_only,
               "Do not call CheckInvariants");
  CLI11_PARSE(app, argc, argv);
  return headcount::sim::Run(flags);
}
