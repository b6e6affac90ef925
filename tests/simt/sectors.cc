#include "tests/simt/sectors.h"

#include <algorithm>

namespace headcount::simt {

void Sectors::Reset(size_t warps) {
  warps_ = warps;
  for (std::unordered_set<uintptr_t>& touched : touched_) touched.clear();
  for (Place& place : places_) {
    place.warps.resize(warps);
    for (Visits& visits : place.warps) {
      visits.of_lane.fill(0);
      visits.complete = 0;
      visits.open.clear();
    }
  }
}

Sectors::Visits& Sectors::VisitsOf(unsigned warp, Where where) {
  for (Place& place : places_) {
    if (place.where == where) return place.warps[warp];
  }
  places_.push_back({where, std::vector<Visits>(warps_)});
  return places_.back().warps[warp];
}

int64_t Sectors::Access(unsigned warp, unsigned lane, const void* address,
                        size_t bytes, Where where) {
  Visits& visits = VisitsOf(warp, where);
  const size_t place = visits.of_lane[lane]++ - visits.complete;
  if (place == visits.open.size()) visits.open.emplace_back();
  Instruction& instruction = visits.open[place];
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  int64_t added = 0;
  for (uintptr_t sector = begin / kBytes;
       sector <= (begin + bytes - 1) / kBytes; ++sector) {
    std::vector<uintptr_t>& known = instruction.sectors;
    // Backwards: neighbours ask for neighbouring sectors.
    if (std::find(known.rbegin(), known.rend(), sector) != known.rend()) {
      continue;
    }
    known.push_back(sector);
    ++added;
  }
  ++instruction.lanes;
  while (!visits.open.empty() && visits.open.front().lanes == kLanes) {
    visits.open.pop_front();
    ++visits.complete;
  }
  return added;
}

int64_t Sectors::Touch(const void* address, size_t bytes, bool is_write) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  int64_t added = 0;
  for (uintptr_t sector = begin / kBytes;
       sector <= (begin + bytes - 1) / kBytes; ++sector) {
    added += touched_[is_write].insert(sector).second ? 1 : 0;
  }
  return added;
}

}  // namespace headcount::simt
