// SIGTERM and SIGINT as events instead of interruptions.
//
//   BlockTerminationSignals();         // first, before any thread starts
//   ...
//   int signal = WaitForTerminationSignal();
//   ExitOnNextTerminationSignal();     // a second one ends the process now
#pragma once

namespace headcount {

// Threads that start later inherit the mask.
void BlockTerminationSignals();

// Blocks until SIGTERM or SIGINT arrives; returns its number.
int WaitForTerminationSignal();

// From now on the next one ends the process with status 128 + its number.
void ExitOnNextTerminationSignal();

}  // namespace headcount
