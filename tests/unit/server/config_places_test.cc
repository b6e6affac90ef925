// Where errors of a configuration say that it is wrong.
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config.h"
#include "temporary_folder.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

// A key whose map begins in the next line was reported at that line.
TEST(ReadServerConfig, GivesTheLineOfTheKey) {
  const struct {
    std::string yaml;
    std::string error;
  } kCases[] = {
      {"models:\n"
       "  - source: {path: .}\n"
       "    name: a\n"
       "    kv_cach:\n"
       "      dtype: f16\n",
       ":4: models[0].kv_cach: unknown key; did you mean 'kv_cache'?"},
      {"models:\n"
       "  - heads:\n"
       "      pruned:\n"
       "        first:\n"
       "          - 1\n",
       ":4: models[0].heads.pruned.first: 'first' is not"},
      {"queue:\n  requests: 1\nqueue:\n  tokens: 1\n",
       ":3: key 'queue' is here twice; first in line 1"},
      {"threads:\n\nlisten: 127.0.0.1:1\n", ":1: threads: has no value"},
      {"step_tokens: 1\nthreads:", ":2: threads: has no value"},
      // The value is what is wrong.
      {"threads:\n  two\n", ":2: threads: 'two' is not a whole number"},
  };
  const TemporaryFolder folder;
  for (const auto& bad : kCases) {
    SCOPED_TRACE(bad.yaml);
    const std::string file = folder.Write("server.yaml", bad.yaml);
    EXPECT_THAT(std::string(ReadServerConfig(file).status().message()),
                HasSubstr(file + bad.error));
  }
}

}  // namespace
}  // namespace headcount
