// Which seeded bug the mutated sources have; see mutants.json.
#pragma once

namespace headcount::sim {

inline int mutant = 0;  // 0: none

}  // namespace headcount::sim
