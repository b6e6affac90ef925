// headcount_sim: random traffic against the real scheduler, thousands of steps
// of it in the time of one real one, each checked.
//
//   headcount_sim --seeds 0-999 --steps 2000
//   headcount_sim --seeds 17 --steps 345      # what a finding says
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/sim/simulation.h"

namespace headcount::sim {
namespace {

const char kHelp[] = R"(Simulates a server's scheduler and looks for bugs in it.

The Scheduler, BlockPool and PrefixCache are the real ones; the clock, the model
and the clients are made up from a seed: models of unlike shapes, floors and
shares, common prefixes, scores, cancels, deadlines, readers that do not read,
steps that fail, models that come and go. An oracle with books of its own checks
every step; tests/sim/README.md lists what. A seed does the same everywhere.

  headcount_sim                                 200 seeds, some seconds
  headcount_sim --seeds 0-9999 --steps 2000     20 million steps
  headcount_sim --seeds 17 --steps 345          again what went wrong

What went wrong is printed with the command that shows it again; run that in a
debugger with a breakpoint on headcount::sim::Verdict. Exit status 1 then.
)";

struct Flags {
  std::string seeds = "0-199";
  int64_t steps = 2000;
  int models = 0;
  int64_t deep = 16;
  int64_t invariants = 128;
  uint64_t twice = 16;
};

// For a CHECK that fails: what to say of the seed that runs.
char abort_note[256];

void OnAbort(int) {
  (void)!write(STDERR_FILENO, abort_note, std::strlen(abort_note));
}

std::string CommandOf(uint64_t seed, uint64_t steps, const Flags& flags) {
  std::string command =
      absl::StrCat("headcount_sim --seeds ", seed, " --steps ", steps);
  if (flags.models > 0) absl::StrAppend(&command, " --models ", flags.models);
  return command;
}

class Progress {
 public:
  Progress(uint64_t first, uint64_t last)
      : first_(first), last_(last), shown_(isatty(STDERR_FILENO) != 0) {}
  ~Progress() {
    if (shown_) std::fputs("\r\x1b[K", stderr);
  }

  void Show(uint64_t seed, double steps_per_second) const {
    if (!shown_) return;
    constexpr int kWidth = 40;
    const double part = static_cast<double>(seed - first_) /
                        static_cast<double>(last_ - first_ + 1);
    const auto full = static_cast<size_t>(kWidth * part);
    std::fprintf(stderr, "\r[%s%s] %3.0f%%  seed %llu  %.0f steps/s ",
                 std::string(full, '#').c_str(),
                 std::string(kWidth - full, ' ').c_str(), 100 * part,
                 static_cast<unsigned long long>(seed), steps_per_second);
  }

 private:
  const uint64_t first_;
  const uint64_t last_;
  const bool shown_;
};

void Add(const SimulationCounts& more, SimulationCounts* sum) {
  sum->steps += more.steps;
  sum->requests += more.requests;
  sum->tokens += more.tokens;
  sum->preemptions += more.preemptions;
  sum->gathered += more.gathered;
  sum->evictions += more.evictions;
  sum->hit_blocks += more.hit_blocks;
  sum->longest_pause = std::max(sum->longest_pause, more.longest_pause);
  sum->longest_wait = std::max(sum->longest_wait, more.longest_wait);
}

// Whether the seed broke no rule; says so otherwise.
bool RunSeed(uint64_t seed, const Flags& flags, SimulationCounts* sum) {
  const std::string note = absl::StrCat(
      "seed ", seed, "; again: ", CommandOf(seed, flags.steps, flags), "\n");
  std::snprintf(abort_note, sizeof(abort_note), "%s", note.c_str());
  const SimulationOptions options{.steps = flags.steps,
                                  .num_models = flags.models,
                                  .deep_every = flags.deep,
                                  .invariants_every = flags.invariants};
  Simulation simulation(seed, options);
  const bool held = simulation.Run();
  const SimulationCounts counts = simulation.counts();
  Add(counts, sum);
  if (!held) {
    const uint64_t steps =
        std::min(counts.steps, static_cast<uint64_t>(flags.steps));
    std::fprintf(stderr, "\nseed %llu (%s), step %llu: %s: %s\nagain: %s\n",
                 static_cast<unsigned long long>(seed),
                 KindName(simulation.world().kind),
                 static_cast<unsigned long long>(counts.steps),
                 simulation.verdict().rule().c_str(),
                 simulation.verdict().message().c_str(),
                 CommandOf(seed, steps, flags).c_str());
    return false;
  }
  if (flags.twice == 0 || seed % flags.twice != 0) return true;
  Simulation again(seed, options);
  again.Run();
  Add(again.counts(), sum);
  if (again.hash() == simulation.hash()) return true;
  std::fprintf(stderr, "\nseed %llu: I12 two runs planned differently\n",
               static_cast<unsigned long long>(seed));
  return false;
}

int Run(const Flags& flags) {
  const std::vector<std::string> ends = absl::StrSplit(flags.seeds, '-');
  uint64_t first = 0;
  uint64_t last = 0;
  if (ends.size() > 2 || !absl::SimpleAtoi(ends.front(), &first) ||
      !absl::SimpleAtoi(ends.back(), &last) || last < first) {
    std::fprintf(stderr,
                 "--seeds: \"%s\" is no seed and no range such as 0-99\n",
                 flags.seeds.c_str());
    return 2;
  }
  std::signal(SIGABRT, OnAbort);
  const auto start = std::chrono::steady_clock::now();
  SimulationCounts sum;
  uint64_t violations = 0;
  double seconds = 0;
  {
    const Progress progress(first, last);
    for (uint64_t seed = first; seed <= last; ++seed) {
      if (!RunSeed(seed, flags, &sum)) ++violations;
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                              start)
                    .count();
      progress.Show(seed, static_cast<double>(sum.steps) / seconds);
    }
  }
  std::printf(
      "%llu seeds, %llu steps, %llu requests, %llu tokens, %llu preemptions, "
      "%llu gathered, %llu evictions, %llu blocks from the prefix cache\n"
      "longest pause %lld steps, longest wait of the oldest %lld steps\n"
      "%llu violations; %.1f s, %.0f steps/s\n",
      static_cast<unsigned long long>(last - first + 1),
      static_cast<unsigned long long>(sum.steps),
      static_cast<unsigned long long>(sum.requests),
      static_cast<unsigned long long>(sum.tokens),
      static_cast<unsigned long long>(sum.preemptions),
      static_cast<unsigned long long>(sum.gathered),
      static_cast<unsigned long long>(sum.evictions),
      static_cast<unsigned long long>(sum.hit_blocks),
      static_cast<long long>(sum.longest_pause),
      static_cast<long long>(sum.longest_wait),
      static_cast<unsigned long long>(violations), seconds,
      static_cast<double>(sum.steps) / seconds);
  return violations == 0 ? 0 : 1;
}

}  // namespace
}  // namespace headcount::sim

int main(int argc, char** argv) {
  headcount::sim::Flags flags;
  CLI::App app(headcount::sim::kHelp, "headcount_sim");
  app.add_option("--seeds", flags.seeds, "One seed, or first-last")
      ->capture_default_str();
  app.add_option("--steps", flags.steps, "Of traffic, for each seed")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--models", flags.models,
                 "How many models; 0: as the seed has it")
      ->capture_default_str()
      ->check(CLI::Range(0, 16));
  app.add_option("--deep", flags.deep,
                 "Walk all blocks every so many steps; 0: never")
      ->capture_default_str();
  app.add_option("--invariants", flags.invariants,
                 "Call CheckInvariants every so many steps; 0: never")
      ->capture_default_str();
  app.add_option("--twice", flags.twice,
                 "Run every so many seeds twice and compare; 0: none")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return headcount::sim::Run(flags);
}
