#include "cli/interrupt.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "base/check.h"
#include "cli/exit_code.h"

namespace headcount {
namespace {

sigset_t EndingSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

Interrupt::Interrupt(std::function<void()> on_signal) {
  const sigset_t set = EndingSignals();
  CHECK(pthread_sigmask(SIG_BLOCK, &set, &previous_) == 0);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC);
  stop_ = eventfd(0, EFD_CLOEXEC);
  CHECK(signals_ >= 0 && stop_ >= 0);
  thread_ = std::thread(
      [this, on_signal = std::move(on_signal)] { Watch(on_signal); });
}

Interrupt::~Interrupt() {
  CHECK(eventfd_write(stop_, 1) == 0);
  thread_.join();
  close(signals_);
  close(stop_);
  CHECK(pthread_sigmask(SIG_SETMASK, &previous_, nullptr) == 0);
}

void Interrupt::Watch(const std::function<void()>& on_signal) {
  bool signalled = false;
  while (true) {
    std::array<pollfd, 2> events = {
        {{signals_, POLLIN, 0}, {stop_, POLLIN, 0}}};
    if (poll(events.data(), events.size(), -1) < 0) continue;  // EINTR
    if (events[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signals_, &info, sizeof(info)) != sizeof(info)) continue;
    if (signalled) _exit(kExitInterrupted);
    signalled = true;
    on_signal();
  }
}

}  // namespace headcount
