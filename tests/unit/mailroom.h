// The model that comes with the sources.
#pragma once

namespace headcount {

inline constexpr char kMailroom[] = HEADCOUNT_SOURCE_DIR "/models/mailroom";

}  // namespace headcount
