// A file can claim any size. What is allocated to read it must depend on how
// large it is, not on what it says.
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>

#include "absl/strings/str_cat.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/format/safetensors_writer.h"

namespace {
int64_t allocated_bytes = 0;  // by this program's only thread
}  // namespace

// Not inlined: GCC warns of the mismatch where it sees just one of the two.
[[gnu::noinline]] void* operator new(size_t size) {
  allocated_bytes += static_cast<int64_t>(size);
  void* const memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace headcount {
namespace {

// All that was asked for, freed again or not.
int64_t AllocatedByParsing(const std::string& file) {
  const auto* bytes = reinterpret_cast<const std::byte*>(file.data());
  const int64_t before = allocated_bytes;
  EXPECT_FALSE(ParseSafetensors({bytes, file.size()}, "file").ok());
  return allocated_bytes - before;
}

TEST(AllocationTest, ALieAboutASizeCostsLittle) {
  constexpr int64_t kLittle = 16 << 10;
  for (uint64_t length : {uint64_t{1} << 26, uint64_t{100'000'000},
                          uint64_t{1} << 61, UINT64_MAX}) {
    EXPECT_LT(AllocatedByParsing(SafetensorsFile(length, "{}")), kLittle);
  }
  for (const char* size : {"2305843009213693952", "4611686018427387904",
                           "9223372036854775807", "1000000000"}) {
    const std::string header =
        absl::StrCat(R"({"t":{"dtype":"F16","shape":[)", size,
                     R"(],"data_offsets":[0,)", size, "]}}");
    EXPECT_LT(AllocatedByParsing(SafetensorsFile(header, 100)), kLittle);
  }
}

TEST(AllocationTest, ALongShapeOrDeepNestingCostsLittleMoreThanItsText) {
  std::string numbers = "1";
  for (int i = 0; i < 500'000; ++i) numbers += ",1";
  const std::string shape = R"({"t":{"dtype":"F32","shape":[)" + numbers;
  EXPECT_LT(AllocatedByParsing(SafetensorsFile(shape, 0)), 64 << 10);

  const std::string brackets(1 << 20, '[');
  const int64_t before = allocated_bytes;
  EXPECT_FALSE(ParseJson(brackets, "text").ok());
  EXPECT_LT(allocated_bytes - before, 64 << 10);
}

// The header, `keys` and `infos` of a GGUF file that does not go on.
int64_t AllocatedByGguf(uint64_t num_tensors, uint64_t num_keys,
                        const std::string& rest) {
  const std::string file = GgufHeader(3, num_tensors, num_keys) + rest;
  const auto* bytes = reinterpret_cast<const std::byte*>(file.data());
  const int64_t before = allocated_bytes;
  EXPECT_FALSE(ParseGguf({bytes, file.size()}, "file").ok());
  return allocated_bytes - before;
}

TEST(AllocationTest, ALieInAGgufFileCostsLittle) {
  constexpr int64_t kLittle = 16 << 10;
  for (uint64_t count :
       {uint64_t{65'536}, uint64_t{1} << 31, uint64_t{1} << 61, UINT64_MAX}) {
    EXPECT_LT(AllocatedByGguf(count, 0, ""), kLittle);
    EXPECT_LT(AllocatedByGguf(0, count, ""), kLittle);
    EXPECT_LT(AllocatedByGguf(0, 1, Bytes(count) + "k"), kLittle);
    EXPECT_LT(AllocatedByGguf(0, 1, GgufKey("k", kGgufString, Bytes(count))),
              kLittle);
    for (const uint32_t type : {kGgufUint8, kGgufString, kGgufFloat64}) {
      EXPECT_LT(AllocatedByGguf(0, 1, GgufArrayKey("k", type, count, "")),
                kLittle);
    }
    EXPECT_LT(AllocatedByGguf(1, 0, GgufTensor("t", {count, 1}, 0, 0)),
              kLittle);
    EXPECT_LT(AllocatedByGguf(1, 0, GgufTensor("t", {1}, 0, count)), kLittle);
  }
}

TEST(AllocationTest, AVocabularyIsNotCopied) {
  std::string tokens;
  for (int i = 0; i < 50'000; ++i) {
    tokens += GgufText("a token of some length");
  }
  EXPECT_LT(AllocatedByGguf(0, 2,
                            GgufArrayKey("tokenizer.ggml.tokens", kGgufString,
                                         50'000, tokens)),
            16 << 10);
}

TEST(AllocationTest, MetadataIsNotKept) {
  std::string header = R"({"__metadata__":{)";
  for (int i = 0; i < 50'000; ++i) {
    absl::StrAppend(&header, "\"a key of some length ", i, "\":\"value\",");
  }
  header += R"("last":"one"},"t":1})";
  EXPECT_LT(AllocatedByParsing(SafetensorsFile(header, 0)), 64 << 10);
}

}  // namespace
}  // namespace headcount
