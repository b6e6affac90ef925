// GGUF files that lie, are cut short or are not what their name says, one row
// each. Every one is refused with a message that names the key or the tensor.
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "format/checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/format/temp_folder.h"

namespace headcount {
namespace {

using testing::HasSubstr;

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ8_0 = 8;
constexpr uint64_t k2To31 = uint64_t{1} << 31;
constexpr uint64_t k2To32 = uint64_t{1} << 32;
constexpr uint64_t k2To61 = uint64_t{1} << 61;
constexpr uint64_t k2To63 = uint64_t{1} << 63;

struct Malformed {
  std::string fault;
  std::string bytes;
  std::string message;  // a part of it
};

// `infos` of `num_tensors`, then `data` at an aligned place.
std::string Tensors(uint64_t num_tensors, const std::string& infos, size_t data,
                    const std::string& keys = "", uint64_t num_keys = 0) {
  std::string file = GgufHeader(3, num_tensors, num_keys) + keys + infos;
  file.append((32 - file.size() % 32) % 32, '\0');
  return file.append(data, 'd');
}

// One tensor "t" over 64 bytes of data.
Malformed Tensor(std::string fault, const std::vector<uint64_t>& dims,
                 uint32_t type, uint64_t offset, std::string message) {
  return {std::move(fault), Tensors(1, GgufTensor("t", dims, type, offset), 64),
          std::move(message)};
}

// One key, as it stands.
Malformed Key(std::string fault, const std::string& key, std::string message) {
  return {std::move(fault), GgufHeader(3, 0, 1) + key, std::move(message)};
}

std::vector<Malformed> Headers() {
  const std::string good = GgufHeader(3, 0, 0);
  std::string big_endian = good;
  std::swap(big_endian[4], big_endian[7]);
  return {
      {"empty file", "", "does not start with 'GGUF'"},
      {"3 bytes", "GGU", "does not start with 'GGUF'"},
      {"another format", std::string("\x10\0\0\0\0\0\0\0{\"__meta", 16),
       "does not start with 'GGUF'"},
      {"the magic alone", "GGUF", "4 bytes are too few"},
      {"one byte short", good.substr(0, good.size() - 1),
       "23 bytes are too few"},
      {"big-endian", big_endian, "is big-endian"},
      {"version 0", GgufHeader(0, 0, 0), "is of GGUF version 0"},
      {"version 1", GgufHeader(1, 0, 0), "is of GGUF version 1"},
      {"version 4", GgufHeader(4, 0, 0), "is of GGUF version 4"},
      {"65,537 tensors", GgufHeader(3, 65'537, 0),
       "65537 tensors, over the limit of 65536"},
      {"2^63 tensors", GgufHeader(3, k2To63, 0),
       "9223372036854775808 tensors, over the limit"},
      {"2^64 - 1 tensors", GgufHeader(3, UINT64_MAX, 0), "tensors, over"},
      {"65,537 keys", GgufHeader(3, 0, 65'537),
       "65537 keys, over the limit of 65536"},
      {"2^64 - 1 keys", GgufHeader(3, 0, UINT64_MAX), "keys, over the limit"},
      {"keys that are not there", GgufHeader(3, 0, 2),
       "the name of key 1 of 2 leads past the end of the file"},
      {"tensors that are not there", GgufHeader(3, 2, 0),
       "the name of tensor 1 of 2 leads past the end of the file"},
  };
}

std::vector<Malformed> Keys() {
  const std::string incomplete = "key 'k': the file ends inside it";
  const std::string one = GgufKey("k", kGgufUint32, Bytes<uint32_t>(1));
  return {
      Key("empty key", GgufKey("", kGgufUint8, "x"), "key 1 of 1 is empty"),
      Key("key over the limit", GgufKey(std::string(65'536, 'k'), 0, "x"),
          "key 1 of 1 takes 65536 bytes, over the limit of 65535"),
      Key("key of 2^64 - 1 bytes", Bytes(UINT64_MAX) + "k",
          "key 1 of 1 leads past the end"),
      Key("key of 2^63 bytes", Bytes(k2To63) + "k", "leads past the end"),
      {"key twice", GgufHeader(3, 0, 2) + one + one, "key 'k' is there twice"},
      {"key twice, of other types",
       GgufHeader(3, 0, 2) + one + GgufKey("k", kGgufString, GgufText("1")),
       "key 'k' is there twice"},
      Key("no type", GgufText("k"), incomplete),
      Key("no value", GgufKey("k", kGgufUint32, ""), incomplete),
      Key("value a byte short", GgufKey("k", kGgufFloat64, "1234567"),
          incomplete),
      Key("type 13", GgufKey("k", 13, "12345678"),
          "key 'k': unknown value type 13"),
      Key("type 2^32 - 1", GgufKey("k", UINT32_MAX, "12345678"),
          "key 'k': unknown value type 4294967295"),
      Key("boolean 2", GgufKey("k", kGgufBool, "\2"),
          "key 'k': a boolean is neither 0 nor 1"),
      Key("string without length", GgufKey("k", kGgufString, "1234"),
          incomplete),
      Key("string a byte short",
          GgufKey("k", kGgufString, Bytes<uint64_t>(5) + "1234"), incomplete),
      Key("string of 2^64 - 1 bytes",
          GgufKey("k", kGgufString, Bytes(UINT64_MAX) + "1234"), incomplete),
      Key("array without count",
          GgufKey("k", kGgufArray, Bytes<uint32_t>(kGgufUint8) + "1234"),
          incomplete),
      Key("array one element short", GgufArrayKey("k", kGgufUint16, 3, "1234"),
          incomplete),
      Key("array of 2^61 float64", GgufArrayKey("k", kGgufFloat64, k2To61, ""),
          incomplete),
      Key("array of 2^64 - 1 bytes",
          GgufArrayKey("k", kGgufUint8, UINT64_MAX, "1234"), incomplete),
      Key("array of 2^61 strings",
          GgufArrayKey("k", kGgufString, k2To61, GgufText("a")), incomplete),
      Key("array of arrays", GgufArrayKey("k", kGgufArray, 1, GgufText("")),
          "key 'k': an array of arrays is not supported"),
      Key("array of type 13", GgufArrayKey("k", 13, 0, ""),
          "key 'k': unknown value type 13"),
      Key("array with a boolean 255",
          GgufArrayKey("k", kGgufBool, 3, "\1\xff\1"),
          "key 'k': a boolean is neither 0 nor 1"),
      Key("name is no text", GgufKey("\x1b[2J", 13, ""),
          "key '\\x1b[2J': unknown value type 13"),
  };
}

std::vector<Malformed> Alignments() {
  const std::string name = "general.alignment";
  const auto with = [&](const std::string& key) {
    return Tensors(1, GgufTensor("t", {16}, kF32, 0), 64, key, 1);
  };
  const auto of = [&](uint32_t alignment) {
    return with(GgufKey(name, kGgufUint32, Bytes(alignment)));
  };
  const std::string no_power = "is no power of two";
  return {
      {"alignment 0", of(0), "key 'general.alignment': 0 " + no_power},
      {"alignment 24", of(24), "key 'general.alignment': 24 " + no_power},
      {"alignment -32", with(GgufKey(name, kGgufInt32, Bytes<int32_t>(-32))),
       "key 'general.alignment': -32 " + no_power},
      {"alignment is a text", with(GgufKey(name, kGgufString, GgufText("32"))),
       "key 'general.alignment' is one string, not an integer"},
      {"alignment is an array",
       with(GgufArrayKey(name, kGgufUint32, 1, Bytes<uint32_t>(32))),
       "key 'general.alignment' is an array of 1 integer, not an integer"},
      {"alignment 2^31", of(1U << 31),
       "tensor 't': its data leads past the end of the file"},
      {"alignment 2^62",
       with(GgufKey(name, kGgufUint64, Bytes(uint64_t{1} << 62))),
       "tensor 't': its data leads past the end of the file"},
  };
}

std::vector<Malformed> Infos() {
  const std::string t = GgufTensor("t", {16}, kF32, 0);
  return {
      {"name is empty", Tensors(1, GgufTensor("", {16}, kF32, 0), 64),
       "the name of tensor 1 of 1 is empty"},
      {"name of 65 bytes",
       Tensors(1, GgufTensor(std::string(65, 'n'), {16}, kF32, 0), 64),
       "the name of tensor 1 of 1 takes 65 bytes, over the limit of 64"},
      {"name of 2^64 - 1 bytes", Tensors(1, Bytes(UINT64_MAX) + "t", 64),
       "the name of tensor 1 of 1 leads past the end"},
      {"name twice", Tensors(2, t + GgufTensor("t", {16}, kF32, 64), 128),
       "tensor 't' is there twice"},
      {"no rank", GgufHeader(3, 1, 0) + GgufText("t"),
       "tensor 't': the file is incomplete"},
      {"no dimensions",
       GgufHeader(3, 1, 0) + GgufText("t") + Bytes<uint32_t>(2) +
           Bytes<uint64_t>(4),
       "tensor 't': the file is incomplete"},
      {"no offset", GgufHeader(3, 1, 0) + t.substr(0, t.size() - 8),
       "tensor 't': the file is incomplete"},
      {"no data", GgufHeader(3, 1, 0) + t,
       "tensor 't': its data leads past the end of the file"},
      Tensor("5 dimensions", {1, 1, 1, 1, 16}, kF32, 0,
             "tensor 't': 5 dimensions, over the limit of 4"),
      {"2^32 - 1 dimensions", Tensors(1, GgufText("t") + Bytes(UINT32_MAX), 64),
       "tensor 't': 4294967295 dimensions"},
      Tensor("dimension 0", {16, 0}, kF32, 0,
             "tensor 't': dimension 2 is of size 0"),
      Tensor("dimension 2^63", {k2To63}, kF32, 0,
             "tensor 't': dimension 1 is of size 9223372036854775808"),
      Tensor("dimension 2^64 - 1", {UINT64_MAX}, kF32, 0,
             "dimension 1 is of size 18446744073709551615"),
      Tensor("type 4, taken back", {16}, 4, 0,
             "tensor 't': unknown element type 4"),
      Tensor("type 2^32 - 1", {16}, UINT32_MAX, 0,
             "tensor 't': unknown element type 4294967295"),
      Tensor("row of half a block", {48, 2}, kQ8_0, 0,
             "tensor 't': rows of 48 elements are no whole number of Q8_0 "
             "blocks, which have 32"),
      Tensor("scalar of a block type", {}, kQ8_0, 0, "rows of 1 elements"),
      Tensor("product wraps to 64 bytes", {16, k2To32, k2To32}, kF32, 0,
             "tensor 't': the shape [4294967296, 4294967296, 16] overflows"),
      Tensor("product wraps to 0", {k2To32, k2To32}, kF32, 0, "overflows"),
      Tensor("bytes wrap", {k2To61}, kF32, 0, "overflows"),
      Tensor("wraps at the last dimension", {k2To31, k2To31, 1, 16}, kF32, 0,
             "overflows"),
  };
}

std::vector<Malformed> Places() {
  const auto two = [](uint64_t first, uint64_t second) {
    return Tensors(2,
                   GgufTensor("a", {16}, kF32, first) +
                       GgufTensor("b", {16}, kF32, second),
                   128);
  };
  return {
      Tensor("an element over the file", {17}, kF32, 0,
             "tensor 't': its 68 bytes at offset 0 lead past the 64 bytes"),
      Tensor("2^31 bytes", {k2To31 / 4}, kF32, 0,
             "tensor 't': its 2147483648 bytes at offset 0 lead past"),
      Tensor("2^62 bytes", {k2To61 / 2}, kF32, 0, "lead past the 64 bytes"),
      Tensor("offset past the file", {8}, kF32, 96,
             "tensor 't': its 32 bytes at offset 96 lead past"),
      Tensor("offset + bytes past the file", {16}, kF32, 32, "lead past"),
      Tensor("offset + bytes wrap", {16}, kF32, UINT64_MAX - 31,
             "tensor 't': its 64 bytes at offset 18446744073709551584 lead"),
      Tensor("offset 1", {4}, kF32, 1,
             "tensor 't': its offset 1 is no multiple of the alignment, 32"),
      Tensor("offset 2^64 - 1", {4}, kF32, UINT64_MAX, "is no multiple"),
      Tensor("hole at the start", {8}, kF32, 32,
             "tensor 't': 32 bytes before it belong to no tensor"),
      {"same bytes", two(0, 0), "overlaps the tensor before it"},
      {"overlap", two(0, 32), "tensor 'b': overlaps the tensor before it"},
      {"overlap, other order", two(32, 0), "tensor 'a': overlaps"},
      {"the second past the file", two(0, 96), "tensor 'b': its 64 bytes"},
      {"hole",
       Tensors(2,
               GgufTensor("a", {8}, kF32, 0) + GgufTensor("b", {8}, kF32, 64),
               128),
       "tensor 'b': 32 bytes before it belong to no tensor"},
  };
}

TEST(GgufMalformedTest, EveryFaultIsNamed) {
  int rows = 0;
  for (const auto& table :
       {Headers(), Keys(), Alignments(), Infos(), Places()}) {
    for (const Malformed& row : table) {
      SCOPED_TRACE(row.fault);
      const TempFolder folder;
      const std::string path = folder.Write("model.gguf", row.bytes);
      const absl::Status status = Checkpoint::Open(path).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      const std::string message(status.message());
      EXPECT_THAT(message, HasSubstr(row.message));
      EXPECT_THAT(message, HasSubstr(path + ": "));
      EXPECT_LT(message.size(), 600U) << "quotes the file at length";
      ++rows;
    }
  }
  RecordProperty("rows", rows);
}

// A file cut short anywhere is refused, or holds all that it lists.
TEST(GgufMalformedTest, NoPrefixOfAFileIsAnother) {
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddInts("llama.attention.head_count", {6, 6});
  writer.AddStrings("tokenizer.ggml.tokens", {"a", "b"});
  writer.AddTensor("a", {32, 2}, kQ8_0, std::string(68, 'a'));
  writer.AddTensor("b", {4}, kF32, std::string(16, 'b'));
  const std::string file = writer.File();
  const size_t end = file.rfind('b') + 1;  // after it there is padding
  for (size_t size = 0; size < file.size(); ++size) {
    const TempFolder folder;
    const std::string path = folder.Write("model.gguf", file.substr(0, size));
    EXPECT_EQ(Checkpoint::Open(path).ok(), size >= end) << size;
  }
}

}  // namespace
}  // namespace headcount
