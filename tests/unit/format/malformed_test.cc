// Files that lie, are cut short or are not what their name says, one row each.
// Every one is refused with a message that names the fault.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "format/checkpoint.h"
#include "format/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/format/safetensors_writer.h"
#include "tests/unit/format/temp_folder.h"

namespace headcount {
namespace {

using testing::HasSubstr;

struct Malformed {
  std::string fault;
  std::vector<std::pair<std::string, std::string>> files;  // name, bytes
  std::string message;                                     // a part of it
  std::string link;  // where the shard "a.safetensors" leads, if it is one
};

std::string Repeat(std::string_view text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all.append(text);
  return all;
}

Malformed File(std::string fault, std::string bytes, std::string message) {
  return {std::move(fault),
          {{"model.safetensors", std::move(bytes)}},
          std::move(message),
          ""};
}

// A header with one tensor "t" of 16 bytes of data.
Malformed Tensor(std::string fault, const std::string& fields,
                 std::string message) {
  return File(std::move(fault),
              SafetensorsFile(absl::StrCat("{\"t\":{", fields, "}}"), 16),
              std::move(message));
}

Malformed Header(std::string fault, const std::string& header,
                 std::string message) {
  return File(std::move(fault), SafetensorsFile(header, 16),
              std::move(message));
}

Malformed Index(std::string fault, std::string index, std::string message) {
  return {std::move(fault),
          {{"model.safetensors.index.json", std::move(index)},
           {"good.safetensors", SafetensorsFile("{}", 0)}},
          std::move(message),
          ""};
}

Malformed Config(std::string fault, std::string text, std::string message) {
  return {std::move(fault),
          {{"config.json", std::move(text)}},
          std::move(message),
          ""};
}

// An F32 vector; 16 bytes of data are there for all of them.
std::string Vector(const std::string& name, int begin, int end) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"F32\",\"shape\":[",
                      (end - begin) / 4, "],\"data_offsets\":[", begin, ",",
                      end, "]}");
}

std::vector<Malformed> FileLengths() {
  const std::string good = absl::StrCat("{", Vector("t", 0, 16), "}");
  const uint64_t size = good.size();
  return {
      File("empty file", "", "0 bytes are too few"),
      File("7 bytes", "1234567", "7 bytes are too few"),
      File("header of 0 bytes", SafetensorsFile(0, "", 16), "start with '{'"),
      File("header of 7 bytes", SafetensorsFile(7, good, 16), "at byte 8"),
      File("header longer than the file", SafetensorsFile(size + 17, good, 16),
           "the file is incomplete"),
      File("header one byte short", SafetensorsFile(size - 1, good, 17),
           "unexpected end of input"),
      File("header over the limit", SafetensorsFile(100'000'001, good, 16),
           "over the limit of 100000000"),
      File("header of 2^31 bytes", SafetensorsFile(1ULL << 31, good, 16),
           "over the limit"),
      File("header of 2^63 bytes", SafetensorsFile(1ULL << 63, good, 16),
           "header of 9223372036854775808 bytes"),
      File("header of 2^64-1 bytes", SafetensorsFile(UINT64_MAX, good, 16),
           "header of 18446744073709551615 bytes"),
      File("another format", "GGUF\3\1\1\1 and so on",
           "this is no safetensors file"),
      File("data one byte short", SafetensorsFile(good, 15), "incomplete"),
      File("data one byte long", SafetensorsFile(good, 17),
           "1 bytes after the last tensor"),
      File("data of no tensor", SafetensorsFile("{}", 16),
           "16 bytes after the last tensor"),
  };
}

std::vector<Malformed> Headers() {
  const std::string t = Vector("t", 0, 16);
  return {
      Header("starts with a space", " {" + t + "}", "start with '{'"),
      Header("array", "[]", "start with '{'"),
      Header("brackets", std::string(100'000, '['), "start with '{'"),
      Header("nested objects", Repeat("{\"a\":", 100'000), "unknown field 'a'"),
      Header("arrays in a tensor",
             "{\"t\":{\"shape\":" + std::string(100'000, '['), "an array"),
      Header("trailing garbage", "{" + t + "}x", "expected end of input"),
      Header("trailing NUL", absl::StrCat("{", t, "}", std::string(1, '\0')),
             "NUL byte"),
      Header("invalid UTF-8", "{\"\xff\":{}}", "ill-formed UTF-8"),
      Header("a name twice",
             "{" + Vector("t", 0, 8) + "," + Vector("t", 8, 16) + "}",
             "tensor 't' is there twice"),
      Header("a name twice, same bytes", "{" + t + "," + t + "}",
             "tensor 't' is there twice"),
      Header("a name twice, spelled differently",
             "{" + Vector("t", 0, 8) + "," + Vector("\\u0074", 8, 16) + "}",
             "tensor 't' is there twice"),
      Header("tensor is a number", "{\"t\":1}", "'t': the number 1"),
      Header("tensor is null", "{\"t\":null}", "'t': null"),
      Header("tensor is a string", "{\"t\":\"F32\"}", "'t': the string 'F32'"),
      Header("metadata is a string", "{\"__metadata__\":\"pt\"}",
             "'__metadata__': the string 'pt'"),
      Header("metadata holds a number", "{\"__metadata__\":{\"a\":1}}",
             "'__metadata__': the number 1"),
      Header("metadata holds an object", "{\"__metadata__\":{\"a\":{}}}",
             "'__metadata__': an object"),
      Header("metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}",
             "__metadata__ is there twice"),
      Header("overlap",
             "{" + Vector("a", 0, 12) + "," + Vector("b", 8, 16) + "}",
             "tensor 'b' overlaps"),
      Header("empty tensor inside another",
             "{" + Vector("a", 0, 16) + "," + Vector("b", 8, 8) + "}",
             "tensor 'b' overlaps"),
      Header("hole", "{" + Vector("a", 0, 4) + "," + Vector("b", 8, 16) + "}",
             "4 bytes before tensor 'b'"),
      Header("hole at the start", "{" + Vector("a", 4, 16) + "}",
             "4 bytes before tensor 'a'"),
  };
}

std::vector<Malformed> Fields() {
  const std::string f32 = "\"dtype\":\"F32\",";
  const std::string four = f32 + "\"shape\":[4],";
  const std::string all = "\"data_offsets\":[0,16]";
  const std::string big = "9223372036854775807";  // 2^63 - 1
  return {
      Tensor("no fields", "", "needs all of the fields"),
      Tensor("no dtype", "\"shape\":[4]," + all, "needs all of the fields"),
      Tensor("no shape", f32 + all, "needs all of the fields"),
      Tensor("no offsets", f32 + "\"shape\":[4]", "needs all of the fields"),
      Tensor("dtype twice", f32 + four + all, "'dtype' is there twice"),
      Tensor("shape twice", four + "\"shape\":[4]," + all,
             "'shape' is there twice"),
      Tensor("offsets twice", four + all + "," + all,
             "'data_offsets' is there twice"),
      Tensor("unknown field", four + all + ",\"scale\":2",
             "unknown field 'scale'"),
      Tensor("unknown dtype", "\"dtype\":\"F31\",\"shape\":[4]," + all,
             "unknown dtype 'F31'"),
      Tensor("dtype in small letters", "\"dtype\":\"f32\",\"shape\":[4]," + all,
             "unknown dtype 'f32'"),
      Tensor("dtype is a number", "\"dtype\":32", "'dtype': the number 32"),
      Tensor("shape is a number", f32 + "\"shape\":4", "the number 4"),
      Tensor("shape is a string", f32 + "\"shape\":\"4\"", "the string '4'"),
      Tensor("shape is negative", f32 + "\"shape\":[-4]," + all,
             "tensor 't', field 'shape': the number -4"),
      Tensor("shape is minus zero", f32 + "\"shape\":[-0]", "the number 0"),
      Tensor("shape is a fraction", f32 + "\"shape\":[4.0]," + all, "'4.0'"),
      Tensor("shape is 2^63", f32 + "\"shape\":[9223372036854775808]," + all,
             "9223372036854775808, which is too large"),
      Tensor("shape is 2^64", f32 + "\"shape\":[18446744073709551616]," + all,
             "the number '18446744073709551616'"),
      Tensor("shape is over a double", f32 + "\"shape\":[1e999]", "overflow"),
      Tensor("shape holds null", f32 + "\"shape\":[null]", "null"),
      Tensor("shape holds an array", f32 + "\"shape\":[[4]]", "an array"),
      Tensor("9 dimensions", f32 + "\"shape\":[1,1,1,1,1,1,1,1,4]," + all,
             "more than 8 numbers"),
      Tensor("product wraps to 16 bytes",
             f32 + "\"shape\":[4,4611686018427387905]," + all, "overflows"),
      Tensor("product wraps to 0",
             f32 + "\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]",
             "overflows"),
      Tensor("bytes wrap", f32 + "\"shape\":[" + big + "]," + all, "overflows"),
      Tensor("half a byte", "\"dtype\":\"F4\",\"shape\":[3]," + all,
             "whole number of bytes"),
      Tensor("range an element short", four + "\"data_offsets\":[0,12]",
             "takes 16 bytes, but 'data_offsets' [0, 12] hold 12"),
      Tensor("range an element long", f32 + "\"shape\":[3]," + all,
             "takes 12 bytes, but 'data_offsets' [0, 16] hold 16"),
      Tensor("begin past the file", four + "\"data_offsets\":[32,48]",
             "lead past the 16 bytes of data"),
      Tensor("end past the file", f32 + "\"shape\":[5],\"data_offsets\":[0,20]",
             "lead past the 16 bytes of data"),
      Tensor("backwards", four + "\"data_offsets\":[16,0]", "run backwards"),
      Tensor("offset + length wraps",
             four + "\"data_offsets\":[18446744073709551608,8]", "too large"),
      Tensor("end is 2^63-1", four + "\"data_offsets\":[0," + big + "]",
             "lead past the 16 bytes of data"),
      Tensor("one offset", four + "\"data_offsets\":[16]", "two numbers"),
      Tensor("three offsets", four + "\"data_offsets\":[0,16,16]",
             "more than 2 numbers"),
      Tensor("negative offset", four + "\"data_offsets\":[-16,0]",
             "the number -16"),
  };
}
std::string IndexOf(const std::string& shard) {
  return absl::StrCat("{\"weight_map\":{\"t\":\"", shard, "\"}}");
}

std::vector<Malformed> ShardNames() {
  const std::string reason = "not the plain name of a file";
  return {
      Index("parent", IndexOf("../x.safetensors"), reason),
      Index("dots", IndexOf(".."), reason),
      Index("hidden", IndexOf(".good.safetensors"), reason),
      Index("absolute", IndexOf("/etc/passwd"), "'/etc/passwd', which is not"),
      Index("subdirectory", IndexOf("a/good.safetensors"), reason),
      Index("backslash", IndexOf("a\\\\good.safetensors"), reason),
      Index("NUL", IndexOf("good.safetensors\\u0000.x"), reason),
      Index("line feed", IndexOf("good\\n.safetensors"), reason),
      Index("4 KiB", IndexOf(std::string(4096, 'x')), reason),
      Index("empty", IndexOf(""), reason),
      Index("number", "{\"weight_map\":{\"t\":1}}", "said to be in number"),
      Index("missing", IndexOf("b.safetensors"),
            "'b.safetensors' cannot be opened: No such file"),
      {"link out of the directory",
       {{"model.safetensors.index.json", IndexOf("a.safetensors")}},
       "a link out of the directory",
       HEADCOUNT_SOURCE_DIR "/models/mailroom/model.safetensors"},
      {"link to itself",
       {{"model.safetensors.index.json", IndexOf("a.safetensors")}},
       "'a.safetensors' cannot be opened",
       "a.safetensors"},
      {"link to a directory",
       {{"model.safetensors.index.json", IndexOf("a.safetensors")}},
       "is not a regular file",
       "."},
  };
}

std::vector<Malformed> Indexes() {
  std::string many = "{\"weight_map\":{";
  for (int i = 0; i < 65'537; ++i) {
    absl::StrAppend(&many, i == 0 ? "" : ",", "\"", i, "\":\"good\"");
  }
  many += "}}";
  std::string shards = "{\"weight_map\":{";
  for (int i = 0; i < 1025; ++i) {
    absl::StrAppend(&shards, i == 0 ? "" : ",", "\"", i, "\":\"", i, "\"");
  }
  shards += "}}";
  const std::string t = SafetensorsFile("{" + Vector("t", 0, 16) + "}", 16);
  return {
      Index("empty", "", "unexpected end of input"),
      Index("array", "[]", "has no field 'weight_map'"),
      Index("no map", "{\"metadata\":{}}", "has no field 'weight_map'"),
      Index("map is a list", "{\"weight_map\":[]}", "at least one tensor"),
      Index("map is empty", "{\"weight_map\":{}}", "at least one tensor"),
      Index("65,537 tensors", many, "over the limit of 65536"),
      Index("1025 shards", shards, "over the limit of 1024"),
      Index("brackets", std::string(100'000, '['), "deeper than 64"),
      Index("tensor listed twice",
            "{\"weight_map\":{\"t\":\"good\",\"t\":\"good\"}}",
            "key 't' is in the same object twice"),
      Index("shard lacks the tensor", IndexOf("good.safetensors"),
            "'t' is said to be in good.safetensors, which lacks it"),
      {"tensor in another shard",
       {{"model.safetensors.index.json",
         "{\"weight_map\":{\"t\":\"b\",\"u\":\"a\"}}"},
        {"a", t},
        {"b", SafetensorsFile("{" + Vector("u", 0, 16) + "}", 16)}},
       "tensor 't' is said to be in b, which lacks it",
       ""},
      {"tensor in two shards",
       {{"model.safetensors.index.json",
         "{\"weight_map\":{\"t\":\"a\",\"u\":\"b\"}}"},
        {"a", t},
        {"b", t}},
       "tensor 't' is in two shards, a and b",
       ""},
      {"shard is malformed",
       {{"model.safetensors.index.json", IndexOf("a")}, {"a", "{}"}},
       "/a: 2 bytes are too few",
       ""},
  };
}

std::vector<Malformed> Configs() {
  const auto nested = [](int depth) {
    return Repeat("{\"a\":", depth) + "1" + Repeat("}", depth);
  };
  return {
      Config("empty", "", "at byte 1"),
      Config("blank", " \n ", "unexpected end of input"),
      Config("trailing garbage", "{} x", "expected end of input"),
      Config("two values", "{}{}", "expected end of input"),
      Config("trailing comma", "[1,]", "at byte 4"),
      Config("hidden behind a NUL", std::string("{}\0{}", 5),
             "at byte 2: a NUL byte"),
      Config("comment", "{} // 1", "at byte 4"),
      Config("NaN", "[NaN]", "invalid literal"),
      Config("number over a double", "[1e999]", "number overflow"),
      Config("invalid UTF-8", "[\"\xc3(\"]", "ill-formed UTF-8"),
      Config("overlong UTF-8", "[\"\xc0\x80\"]", "ill-formed UTF-8"),
      Config("half a surrogate pair", "[\"\\ud800\"]", "surrogate"),
      Config("100,000 brackets", std::string(100'000, '['), "deeper than 64"),
      Config("100,000 objects", nested(100'000), "deeper than 64"),
      Config("65 levels", nested(65), "deeper than 64"),
      Config("key twice", "{\"a\":1,\"b\":2,\"a\":3}", "key 'a'"),
      Config("key twice, deep", "[{\"a\":{\"b\":[],\"b\":{}}}]", "key 'b'"),
      Config("key twice, spelled differently", "{\"a\":1,\"\\u0061\":3}",
             "key 'a'"),
      Config("a long garbled key", "{\"" + std::string(1 << 20, '\x01') + "\"}",
             "control character"),
      Config("over 64 MiB", std::string((64 << 20) + 1, ' '),
             "over the limit of 67108864"),
  };
}

absl::Status Read(const TempFolder& folder) {
  const std::string config = (folder.path() / "config.json").string();
  if (std::filesystem::exists(config)) return ReadJsonFile(config).status();
  return Checkpoint::Open(folder.path().string()).status();
}

TEST(MalformedTest, EveryFaultIsNamed) {
  int rows = 0;
  for (const auto& table : {FileLengths(), Headers(), Fields(), ShardNames(),
                            Indexes(), Configs()}) {
    for (const Malformed& row : table) {
      SCOPED_TRACE(row.fault);
      const TempFolder folder;
      for (const auto& [name, bytes] : row.files) folder.Write(name, bytes);
      if (!row.link.empty()) {
        std::filesystem::create_symlink(row.link,
                                        folder.path() / "a.safetensors");
      }
      const absl::Status status = Read(folder);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      const std::string message(status.message());
      EXPECT_THAT(message, HasSubstr(row.message));
      EXPECT_THAT(message, HasSubstr(folder.path().string()));
      EXPECT_LT(message.size(), 600U) << "quotes the file at length";
      ++rows;
    }
  }
  RecordProperty("rows", rows);
}

}  // namespace
}  // namespace headcount
