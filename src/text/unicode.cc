#include "text/unicode.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "utf8proc.h"

namespace headcount {
namespace {

constexpr auto kCompose =
    static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
// Longest canonical decomposition of one character, with room to spare.
constexpr size_t kMaxDecomposition = 8;

// What may follow a lead byte: how many bytes, and the range of the first,
// which excludes overlong forms, surrogates and what is above U+10FFFF.
struct Lead {
  size_t continuations;
  unsigned char first_min = 0x80;
  unsigned char first_max = 0xBF;
};

Lead LeadOf(unsigned char byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {2};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {0};
}

// Canonical ordering: each run of combining marks by its class, stably.
void OrderMarks(std::vector<utf8proc_int32_t>& points) {
  const auto combining_class = [](utf8proc_int32_t point) {
    return utf8proc_get_property(point)->combining_class;
  };
  const auto is_mark = [&](utf8proc_int32_t point) {
    return combining_class(point) != 0;
  };
  auto end = points.begin();
  while (true) {
    const auto begin = std::find_if(end, points.end(), is_mark);
    if (begin == points.end()) return;
    end = std::find_if_not(begin, points.end(), is_mark);
    if (end - begin == 1) continue;
    std::stable_sort(begin, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
  }
}

}  // namespace

CharClass ClassOf(char32_t code_point) {
  const auto point = static_cast<utf8proc_int32_t>(code_point);
  switch (utf8proc_category(point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    default:
      // White_Space has six control characters beside the separators.
      return (code_point >= 0x09 && code_point <= 0x0D) || code_point == 0x85
                 ? CharClass::kSpace
                 : CharClass::kOther;
  }
}

Utf8Step ReadUtf8(std::string_view bytes) {
  const auto byte_at = [&](size_t i) {
    return static_cast<unsigned char>(bytes[i]);
  };
  const unsigned char first = byte_at(0);
  if (first < 0x80) return {Utf8Step::Kind::kCharacter, first, 1};
  const Lead lead = LeadOf(first);
  if (lead.continuations == 0) return {Utf8Step::Kind::kInvalid, 0, 1};
  char32_t code_point = first & (0x3Fu >> lead.continuations);
  for (size_t i = 1; i <= lead.continuations; ++i) {
    if (i == bytes.size()) return {Utf8Step::Kind::kIncomplete, 0, i};
    const unsigned char min = i == 1 ? lead.first_min : 0x80;
    const unsigned char max = i == 1 ? lead.first_max : 0xBF;
    if (byte_at(i) < min || byte_at(i) > max) {
      return {Utf8Step::Kind::kInvalid, 0, i};
    }
    code_point = (code_point << 6) | (byte_at(i) & 0x3Fu);
  }
  return {Utf8Step::Kind::kCharacter, code_point, lead.continuations + 1};
}

size_t AppendAsUtf8(std::string_view bytes, std::string* out) {
  size_t valid_begin = 0;
  for (size_t pos = 0; pos < bytes.size();) {
    const Utf8Step step = ReadUtf8(bytes.substr(pos));
    if (step.kind != Utf8Step::Kind::kCharacter) {
      out->append(bytes.substr(valid_begin, pos - valid_begin));
      if (step.kind == Utf8Step::Kind::kIncomplete) return step.size;
      out->append(kReplacementCharacter);
      valid_begin = pos + step.size;
    }
    pos += step.size;
  }
  out->append(bytes.substr(valid_begin));
  return 0;
}

std::string ToUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  if (AppendAsUtf8(bytes, &text) > 0) text.append(kReplacementCharacter);
  return text;
}

std::string NormalizeNfc(std::string_view text) {
  // Below U+0300, whose lead byte is 0xCC, nothing combines.
  if (std::all_of(text.begin(), text.end(), [](char c) {
        return static_cast<unsigned char>(c) < 0xCC;
      })) {
    return std::string(text);
  }
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = ReadUtf8(text.substr(pos));
    CHECK(step.kind == Utf8Step::Kind::kCharacter) << "byte " << pos;
    std::array<utf8proc_int32_t, kMaxDecomposition> parts;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(step.code_point), parts.data(),
        parts.size(), kCompose, /*last_boundclass=*/nullptr);
    CHECK(count > 0 && static_cast<size_t>(count) <= parts.size());
    points.insert(points.end(), parts.begin(), parts.begin() + count);
    pos += step.size;
  }
  OrderMarks(points);
  const utf8proc_ssize_t composed = utf8proc_normalize_utf32(
      points.data(), static_cast<utf8proc_ssize_t>(points.size()), kCompose);
  CHECK(composed >= 0);

  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < composed; ++i) {
    std::array<utf8proc_uint8_t, 4> bytes;
    const utf8proc_ssize_t size =
        utf8proc_encode_char(points[static_cast<size_t>(i)], bytes.data());
    out.append(bytes.begin(), bytes.begin() + size);
  }
  return out;
}

}  // namespace headcount
