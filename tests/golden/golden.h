// Golden values: what independent implementations computed, kept compressed
// under tests/data/golden.
#pragma once

#include <string>

namespace headcount {

// The whole content of a gzip file, uncompressed. Aborts if it cannot be read:
// a test without its data has nothing to say.
std::string ReadGzipFile(const std::string& path);

}  // namespace headcount
