// What stands before a text that is tokenized: some tokenizers begin a text
// with a space of their own.
#pragma once

namespace headcount {

enum class TextPlace {
  kStart,       // nothing
  kAfterToken,  // a token that is found literally, such as a special one
  kAfterText,   // text that was tokenized apart
};

}  // namespace headcount
