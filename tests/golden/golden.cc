#include "tests/golden/golden.h"

#include <array>
#include <memory>

#include "base/check.h"
#include "zlib.h"

namespace headcount {

std::string ReadGzipFile(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(
      gzopen(path.c_str(), "rb"), gzclose);
  CHECK(file != nullptr) << "cannot open " << path;
  std::string content;
  std::array<char, 1 << 16> chunk;
  int size;
  while ((size = gzread(file.get(), chunk.data(), chunk.size())) > 0) {
    content.append(chunk.data(), static_cast<size_t>(size));
  }
  CHECK(size == 0) << "cannot read " << path;
  return content;
}

}  // namespace headcount
