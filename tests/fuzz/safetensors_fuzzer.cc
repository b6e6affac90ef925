// Any bytes as a safetensors file. What the parser accepts has to keep the
// promises of format/safetensors.h.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/check.h"
#include "format/safetensors.h"

namespace headcount {
namespace {

void ParseAndCheck(absl::Span<const std::byte> file) {
  const auto entries = ParseSafetensors(file, "input");
  if (!entries.ok()) {
    CHECK(entries.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  std::set<std::string> names;
  size_t data_bytes = 0;
  for (const TensorEntry& entry : *entries) {
    CHECK(names.insert(entry.name).second) << entry.name;
    if (!entry.data.empty()) {  // the last byte is one of the file
      CHECK(&entry.data.back() <= &file.back()) << entry.name;
    }
    data_bytes += entry.data.size();
    if (!entry.dtype) continue;
    auto bytes = static_cast<double>(ElementBytes(*entry.dtype, 1));
    for (int64_t size : entry.shape) bytes *= static_cast<double>(size);
    CHECK(bytes == static_cast<double>(entry.data.size())) << entry.name;
  }
  // Together they are the end of the file, in order and without a gap.
  const std::byte* next = file.data() + file.size() - data_bytes;
  for (const TensorEntry& entry : *entries) {
    CHECK(entry.data.data() == next) << entry.name;
    next += entry.data.size();
  }
}

}  // namespace
}  // namespace headcount

// Twice: as a whole file, and as a header with the right length before it and
// 64 bytes of data after, which a search by chance would seldom find.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  headcount::ParseAndCheck({bytes, size});

  std::vector<std::byte> file(8 + size + 64);
  for (size_t i = 0; i < 8; ++i) file[i] = std::byte(size >> (8 * i) & 0xff);
  std::copy_n(bytes, size, file.begin() + 8);
  headcount::ParseAndCheck(file);
  return 0;
}
