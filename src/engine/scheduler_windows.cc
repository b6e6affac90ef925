// What sliding windows ask of a Scheduler: blocks go back as they move on, and
// a sequence that is rewound needs those of the place that it goes back to.
#include <cstddef>

#include "engine/scheduler.h"
#include "heads/kv_geometry.h"

namespace headcount {

bool Scheduler::HoldsWindows(const Sequence& sequence) const {
  const ModelState& state = models_[static_cast<size_t>(sequence.model)];
  for (size_t i = 0; i < sequence.tables.size(); ++i) {
    const Retention& retention = state.model.groups[i].retention;
    if (retention.full()) continue;
    if (sequence.tables[i].num_holes() * kBlockTokens >
        retention.FirstSeen(sequence.computed)) {
      return false;
    }
  }
  return true;
}

// Gives back what the sequence's next token does not see.
void Scheduler::SlideWindows(Sequence* sequence) {
  const ModelState& state = models_[static_cast<size_t>(sequence->model)];
  for (size_t i = 0; i < sequence->tables.size(); ++i) {
    const Retention& retention = state.model.groups[i].retention;
    if (retention.full()) continue;
    sequence->tables[i].Slide(retention.FirstSeen(sequence->computed),
                              TokensToAdmit(*sequence));
  }
}

}  // namespace headcount
