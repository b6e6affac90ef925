#include "text/alphabet.h"

#include <cstddef>

#include "text/unicode.h"

namespace headcount {

void Alphabet::Spell(std::string_view piece, std::vector<int32_t>& ids) const {
  for (size_t pos = 0; pos < piece.size();) {
    size_t end = pos + 1;
    if (!characters.empty()) {
      const Utf8Step step = ReadUtf8(piece.substr(pos));
      end = pos + step.size;
      if (const auto found = characters.find(step.code_point);
          found != characters.end()) {
        ids.push_back(found->second);
        pos = end;
        continue;
      }
    }
    for (; pos < end; ++pos) {
      const int32_t id = bytes[static_cast<unsigned char>(piece[pos])];
      if (id != kNoToken) ids.push_back(id);
    }
  }
}

}  // namespace headcount
