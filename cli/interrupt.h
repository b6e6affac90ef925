// Ctrl-C (SIGINT) and SIGTERM as an event instead of a sudden end.
#pragma once

#include <signal.h>

#include <functional>
#include <thread>

namespace headcount {

// While this object lives, the first SIGINT or SIGTERM calls `on_signal` on a
// thread of its own, and a second one ends the process with 130. Threads
// started meanwhile never see the signals, so it is made before anything that
// starts threads, such as a channel.
class Interrupt {
 public:
  explicit Interrupt(std::function<void()> on_signal);
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  ~Interrupt();

 private:
  void Watch(const std::function<void()>& on_signal);

  sigset_t previous_;  // the thread's mask before
  int signals_;        // signalfd
  int stop_;           // eventfd, readable when the watch shall end
  std::thread thread_;
};

}  // namespace headcount
