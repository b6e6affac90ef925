// What is said when a kernel does what it must not.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>

#include "tests/simt/block.h"

namespace headcount::simt {
namespace {

std::ostream& operator<<(std::ostream& out, const Dim3& index) {
  return out << '(' << index.x << ',' << index.y << ',' << index.z << ')';
}

std::string Doing(const Thread& thread, const Thread& running) {
  if (thread.done) return "has ended";
  if (!thread.CanRun()) {
    return "waits at " + thread.wait->describe(*thread.wait) +
           PlaceName(thread.wait->where);
  }
  return &thread == &running ? "runs" : "can run";
}

// What addr2line turns into file and line.
std::string MachineCodeName(const void* address) {
  std::ostringstream out;
  Dl_info program;
  if (dladdr(address, &program) == 0) {
    out << " at " << address;
  } else {
    const auto* base = static_cast<const char*>(program.dli_fbase);
    out << " at (addr2line -Cipe " << program.dli_fname << " 0x" << std::hex
        << static_cast<const char*>(address) - base - 1 << ')';
  }
  return out.str();
}

// "threads 0-31, 40 (warps 0-1)" for sorted numbers.
std::string Names(const std::vector<unsigned>& threads) {
  std::ostringstream out;
  out << (threads.size() == 1 ? "thread " : "threads ");
  for (size_t i = 0; i < threads.size(); ++i) {
    const size_t first = i;
    while (i + 1 < threads.size() && threads[i + 1] == threads[i] + 1) ++i;
    out << (first == 0 ? "" : ", ") << threads[first];
    if (i > first) out << '-' << threads[i];
  }
  const unsigned first_warp = threads.front() / kWarpSize;
  const unsigned last_warp = threads.back() / kWarpSize;
  if (first_warp == last_warp) {
    out << " (warp " << first_warp << ')';
  } else {
    out << " (warps " << first_warp << '-' << last_warp << ')';
  }
  return out.str();
}

}  // namespace

std::string PlaceName(Where where) {
  if (where.line == 0) return "";
  if (where.line == kMachineCode) return MachineCodeName(where.file);
  const std::string path = where.file;
  const size_t slash = path.rfind('/');
  return " at " + (slash == std::string::npos ? path : path.substr(slash + 1)) +
         ":" + std::to_string(where.line);
}

void Block::FailDeadlock() {
  std::vector<unsigned> waiting;
  for (const Thread& thread : threads_) {
    if (!thread.done) waiting.push_back(thread.linear);
  }
  Fail("deadlock of " + Names(waiting), {});
}

void Block::Fail(const std::string& what, Where where) {
  std::ostringstream out;
  const Thread& running = *thread_;
  out << "simt: " << what << ", block " << index_;
  if (where.line != 0) {
    out << " thread " << running.linear << " (warp " << running.warp << " lane "
        << running.lane << ")" << PlaceName(where);
  }
  out << '\n';
  std::map<std::string, std::vector<unsigned>> threads_in;
  for (const Thread& thread : threads_) {
    threads_in[Doing(thread, running)].push_back(thread.linear);
  }
  for (const auto& [state, threads] : threads_in) {
    out << "  " << Names(threads) << ": " << state << '\n';
  }
  std::fputs(out.str().c_str(), stderr);
  std::abort();
}

}  // namespace headcount::simt
