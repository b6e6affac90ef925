#include "server/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <thread>

namespace headcount {
namespace {

sigset_t TerminationSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void BlockTerminationSignals() {
  const sigset_t set = TerminationSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

int WaitForTerminationSignal() {
  const sigset_t set = TerminationSignals();
  int signal = 0;
  // sigwait fails only for a set without valid signals.
  while (sigwait(&set, &signal) != 0) {
  }
  return signal;
}

void ExitOnNextTerminationSignal() {
  std::thread([] { _exit(128 + WaitForTerminationSignal()); }).detach();
}

}  // namespace headcount
