// Runs a fuzz target on every input of its corpus, in any build. The target
// aborts on a fault.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "gtest/gtest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace headcount {
namespace {

TEST(CorpusReplayTest, NoInputOfTheCorpusFails) {
  int inputs = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(HEADCOUNT_CORPUS)) {
    SCOPED_TRACE(entry.path());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()),
                           bytes.size());
    ++inputs;
  }
  EXPECT_GT(inputs, 0) << HEADCOUNT_CORPUS;
}

}  // namespace
}  // namespace headcount
