#include "text/pre_tokenizer.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/ascii.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace headcount {
namespace {

constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Everything below takes a valid text and a position in it, and gives the end
// of what matches there, or the position itself when nothing does.

struct Char {
  char32_t code_point;
  CharClass char_class;
  size_t size;
};

// `pos` is before the end.
Char CharAt(std::string_view text, size_t pos) {
  const Utf8Step step = ReadUtf8(text.substr(pos));
  return {step.code_point, ClassOf(step.code_point), step.size};
}

bool IsAt(std::string_view text, size_t pos, CharClass char_class) {
  return pos < text.size() && CharAt(text, pos).char_class == char_class;
}

size_t RunEnd(std::string_view text, size_t pos, CharClass char_class) {
  while (pos < text.size()) {
    const Char next = CharAt(text, pos);
    if (next.char_class != char_class) break;
    pos += next.size;
  }
  return pos;
}

// `word` is in lower case.
bool StartsWith(std::string_view text, std::string_view word, bool any_case) {
  const auto equal = [any_case](char want, char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c == want || (any_case && absl::ascii_tolower(byte) == want);
  };
  return text.size() >= word.size() &&
         std::equal(word.begin(), word.end(), text.begin(), equal);
}

// 's|'t|'re|'ve|'m|'ll|'d
size_t ContractionEnd(std::string_view text, size_t pos, bool any_case) {
  if (text[pos] != '\'') return pos;
  const size_t begin = pos + 1;
  const std::string_view rest = text.substr(begin);
  for (const std::string_view ending : {"s", "t", "re", "ve", "m", "ll", "d"}) {
    if (StartsWith(rest, ending, any_case)) return begin + ending.size();
  }
  // Long s: the one other character that folds to one of these letters.
  constexpr std::string_view kLongS = "\u017F";
  if (any_case && rest.starts_with(kLongS)) return begin + kLongS.size();
  return pos;
}

// \s+(?!\S)|\s+ where a space stands: all spaces, but the last one is left to
// what follows.
size_t SpacesEnd(std::string_view text, size_t pos) {
  size_t last = pos;
  size_t end = pos;
  while (end < text.size()) {
    const Char next = CharAt(text, end);
    if (next.char_class != CharClass::kSpace) break;
    last = end;
    end += next.size;
  }
  return end == text.size() || last == pos ? end : last;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t Gpt2End(std::string_view text, size_t pos) {
  const size_t contraction = ContractionEnd(text, pos, /*any_case=*/false);
  if (contraction != pos) return contraction;
  const size_t run = text[pos] == ' ' ? pos + 1 : pos;
  if (run < text.size()) {
    const CharClass char_class = CharAt(text, run).char_class;
    if (char_class != CharClass::kSpace) return RunEnd(text, run, char_class);
  }
  return SpacesEnd(text, pos);
}

// kLlama3Pattern with \p{N}{1,max_digits}.
size_t Llama3End(std::string_view text, size_t pos, int max_digits) {
  const size_t contraction = ContractionEnd(text, pos, /*any_case=*/true);
  if (contraction != pos) return contraction;

  // [^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}
  const Char first = CharAt(text, pos);
  const size_t second = pos + first.size;
  const bool newline = first.code_point == '\r' || first.code_point == '\n';
  switch (first.char_class) {
    case CharClass::kLetter:
      return RunEnd(text, pos, CharClass::kLetter);
    case CharClass::kNumber: {
      size_t end = second;
      for (int digits = 1; digits < max_digits; ++digits) {
        if (!IsAt(text, end, CharClass::kNumber)) break;
        end += CharAt(text, end).size;
      }
      return end;
    }
    case CharClass::kSpace:
    case CharClass::kOther:
      if (!newline && IsAt(text, second, CharClass::kLetter)) {
        return RunEnd(text, second, CharClass::kLetter);
      }
  }
  //  ?[^\s\p{L}\p{N}]+[\r\n]*
  const size_t run = first.code_point == ' ' ? second : pos;
  if (IsAt(text, run, CharClass::kOther)) {
    const size_t end =
        text.find_first_not_of("\r\n", RunEnd(text, run, CharClass::kOther));
    return end == std::string_view::npos ? text.size() : end;
  }
  // \s*[\r\n]+ takes all spaces up to the last newline among them.
  const size_t spaces = RunEnd(text, pos, CharClass::kSpace) - pos;
  const size_t last_newline = text.substr(pos, spaces).find_last_of("\r\n");
  if (last_newline != std::string_view::npos) return pos + last_newline + 1;
  return SpacesEnd(text, pos);
}

size_t DigitsEnd(std::string_view text, size_t pos, bool individual) {
  const Char first = CharAt(text, pos);
  if (first.char_class == CharClass::kNumber) {
    return individual ? pos + first.size
                      : RunEnd(text, pos, CharClass::kNumber);
  }
  while (pos < text.size() && !IsAt(text, pos, CharClass::kNumber)) {
    pos += CharAt(text, pos).size;
  }
  return pos;
}

size_t SpaceMarksEnd(std::string_view text, size_t pos) {
  return std::min(text.find(kSpaceMark, pos + 1), text.size());
}

size_t PieceEnd(SplitRule rule, std::string_view text, size_t pos) {
  switch (rule) {
    case SplitRule::kGpt2:
      return Gpt2End(text, pos);
    case SplitRule::kLlama3:
      return Llama3End(text, pos, /*max_digits=*/3);
    case SplitRule::kQwen2:
      return Llama3End(text, pos, /*max_digits=*/1);
    case SplitRule::kDigitRuns:
      return DigitsEnd(text, pos, /*individual=*/false);
    case SplitRule::kIndividualDigits:
      return DigitsEnd(text, pos, /*individual=*/true);
    case SplitRule::kSpaceMarks:
      return SpaceMarksEnd(text, pos);
  }
  return text.size();
}

}  // namespace

std::optional<SplitRule> SplitRuleOf(std::string_view regex) {
  if (regex == kLlama3Pattern) return SplitRule::kLlama3;
  if (regex == kQwen2Pattern) return SplitRule::kQwen2;
  return std::nullopt;
}

std::vector<std::string_view> PreTokenize(absl::Span<const SplitRule> rules,
                                          std::string_view text) {
  std::vector<std::string_view> pieces;
  if (!text.empty()) pieces.push_back(text);
  for (const SplitRule rule : rules) {
    std::vector<std::string_view> finer;
    for (const std::string_view piece : pieces) {
      for (size_t pos = 0; pos < piece.size();) {
        const size_t end = PieceEnd(rule, piece, pos);
        finer.push_back(piece.substr(pos, end - pos));
        pos = end;
      }
    }
    pieces = std::move(finer);
  }
  return pieces;
}

std::string PreTokenizer::Prepare(std::string_view text,
                                  TextPlace place) const {
  const bool begins_with_space =
      text.starts_with(' ') || (mark_spaces && text.starts_with(kSpaceMark));
  const bool add = (prefix == Prefix::kFirst && place == TextPlace::kStart) ||
                   (prefix == Prefix::kAll && place != TextPlace::kAfterText);
  std::string prepared;
  if (add && !begins_with_space && !text.empty()) prepared = " ";
  prepared += text;
  return mark_spaces ? MarkSpaces(prepared) : prepared;
}

}  // namespace headcount
