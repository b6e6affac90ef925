#include "tests/simt/races.h"

#include <algorithm>
#include <limits>

namespace headcount::simt {
namespace {

void Learn(std::vector<uint32_t>& clock, const std::vector<uint32_t>& other) {
  const size_t size = clock.size();
  uint32_t* const to = clock.data();
  const uint32_t* const from = other.data();
  for (size_t i = 0; i < size; ++i) to[i] = std::max(to[i], from[i]);
}

// The bits of those of cell `cell`'s four bytes that are in the range.
uint8_t BytesOf(size_t cell, size_t offset, size_t bytes) {
  const size_t begin = std::max(offset, cell * 4) - cell * 4;
  const size_t end = std::min(offset + bytes, cell * 4 + 4) - cell * 4;
  return static_cast<uint8_t>((1u << end) - (1u << begin));
}

}  // namespace

void Races::Resize(size_t threads, size_t shared_bytes) {
  threads_ = threads;
  barriers_ = 0;
  clocks_.assign(threads, Clock(threads + kMaxBarriers));
  for (size_t i = 0; i < threads; ++i) clocks_[i][i] = 1;
  arrived_.assign(kMaxBarriers, Clock(threads + kMaxBarriers));
  completed_ = arrived_;
  known_to_all_.assign(kMaxBarriers, 0);
  cells_.assign((shared_bytes + kCellBytes - 1) / kCellBytes, {});
  epoch_ = 0;
}

// Records of earlier blocks are known by their epochs, so none need be erased.
void Races::BeginBlock() {
  first_epoch_ = ++epoch_;
  barriers_ = 0;
}

void Races::InitBarrier(size_t barrier) {
  barriers_ = barrier + 1;
  known_to_all_[barrier] = 0;
  std::fill(arrived_[barrier].begin(), arrived_[barrier].end(), 0);
  std::fill(completed_[barrier].begin(), completed_[barrier].end(), 0);
  for (Clock& clock : clocks_) clock[threads_ + barrier] = 0;
  for (size_t i = 0; i < barriers_; ++i) {
    arrived_[i][threads_ + barrier] = completed_[i][threads_ + barrier] = 0;
  }
}

// Everything before is ordered before everything after, so that a count does
// for the clocks of threads.
void Races::SyncAll() {
  ++epoch_;
  for (size_t i = 0; i < barriers_; ++i) {
    for (const Clock& clock : clocks_) {
      known_to_all_[i] = std::max(known_to_all_[i], clock[threads_ + i]);
    }
  }
}

void Races::Join(const std::vector<unsigned>& threads) {
  Clock& first = clocks_[threads[0]];
  for (const unsigned thread : threads) Learn(first, clocks_[thread]);
  for (const unsigned thread : threads) {
    if (thread != threads[0]) clocks_[thread] = first;
  }
  // What they do now is not known to the others.
  for (const unsigned thread : threads) ++clocks_[thread][thread];
}

void Races::Arrive(unsigned thread, size_t barrier) {
  Learn(arrived_[barrier], clocks_[thread]);
  ++clocks_[thread][thread];
}

void Races::CompletePhase(size_t barrier, uint64_t phase) {
  completed_[barrier] = arrived_[barrier];
  completed_[barrier][threads_ + barrier] = static_cast<uint32_t>(phase + 1);
}

void Races::Wait(unsigned thread, size_t barrier) {
  Learn(clocks_[thread], completed_[barrier]);
}

bool Races::IsOrdered(const Record& earlier, unsigned thread) const {
  if (earlier.epoch < first_epoch_) return true;  // of another block
  if (earlier.in_flight) return false;
  if (earlier.who >= threads_) {
    const size_t barrier = earlier.who - threads_;
    return std::max(known_to_all_[barrier], clocks_[thread][earlier.who]) >=
           earlier.clock;
  }
  return earlier.who == thread || earlier.epoch != epoch_ ||
         clocks_[thread][earlier.who] >= earlier.clock;
}

Races::Conflict Races::Describe(const Record& record, size_t cell,
                                bool is_write) const {
  Conflict conflict = {.offset = cell * kCellBytes,
                       .is_write = is_write,
                       .in_flight = record.in_flight,
                       .thread = std::nullopt,
                       .where = places_[record.place]};
  if (record.who < threads_) {
    conflict.thread = record.who;
  } else {
    conflict.in_flight = true;
  }
  return conflict;
}

std::optional<Races::Conflict> Races::FindConflict(const Access& access,
                                                   bool is_write) {
  const size_t last = (access.offset + access.bytes - 1) / kCellBytes;
  for (size_t i = access.offset / kCellBytes; i <= last; ++i) {
    const Cell& cell = cells_[i];
    const uint8_t bytes = BytesOf(i, access.offset, access.bytes);
    if ((cell.write.bytes & bytes) != 0 &&
        !IsOrdered(cell.write, access.thread)) {
      return Describe(cell.write, i, true);
    }
    if (!is_write) continue;
    for (const Record& read : cell.reads) {
      if ((read.bytes & bytes) != 0 && !IsOrdered(read, access.thread)) {
        return Describe(read, i, false);
      }
    }
  }
  return std::nullopt;
}

Races::Record Races::RecordOf(const Access& access) {
  return {.epoch = epoch_,
          .clock = clocks_[access.thread][access.thread],
          .who = static_cast<uint16_t>(access.thread),
          .place = PlaceOf(access.where)};
}

uint16_t Races::PlaceOf(Where where) {
  // Lanes come to the same place one after another.
  if (!places_.empty() && where == places_[last_place_]) return last_place_;
  const uint64_t key =
      reinterpret_cast<uintptr_t>(where.file) ^ uint64_t(where.line) << 44;
  const auto [place, is_new] =
      place_of_.try_emplace(key, static_cast<uint16_t>(places_.size()));
  if (is_new && places_.size() < std::numeric_limits<uint16_t>::max()) {
    places_.push_back(where);
  }
  // Past the last number, places are confused; no program has so many.
  last_place_ =
      std::min(place->second, static_cast<uint16_t>(places_.size() - 1));
  return last_place_;
}

void Races::SetWrites(const Access& access, Record record) {
  const size_t last = (access.offset + access.bytes - 1) / kCellBytes;
  for (size_t i = access.offset / kCellBytes; i <= last; ++i) {
    record.bytes = BytesOf(i, access.offset, access.bytes);
    cells_[i].write = record;
  }
}

std::optional<Races::Conflict> Races::Read(const Access& access) {
  if (const auto conflict = FindConflict(access, false)) return conflict;
  Record record = RecordOf(access);
  const size_t last = (access.offset + access.bytes - 1) / kCellBytes;
  for (size_t i = access.offset / kCellBytes; i <= last; ++i) {
    auto& reads = cells_[i].reads;
    if (reads[0].who != record.who) reads[1] = reads[0];
    record.bytes = BytesOf(i, access.offset, access.bytes);
    reads[0] = record;
  }
  return std::nullopt;
}

std::optional<Races::Conflict> Races::Write(const Access& access) {
  if (const auto conflict = FindConflict(access, true)) return conflict;
  SetWrites(access, RecordOf(access));
  return std::nullopt;
}

std::optional<Races::Conflict> Races::BeginCopy(const Access& access) {
  if (const auto conflict = FindConflict(access, true)) return conflict;
  Record record = RecordOf(access);
  record.in_flight = true;
  SetWrites(access, record);
  return std::nullopt;
}

void Races::EndCopy(const Access& access) {
  SetWrites(access, RecordOf(access));
}

std::optional<Races::Conflict> Races::BulkCopy(const Access& access,
                                               size_t barrier, uint64_t phase) {
  if (const auto conflict = FindConflict(access, true)) return conflict;
  Record record = RecordOf(access);
  record.who = static_cast<uint16_t>(threads_ + barrier);
  record.clock = static_cast<uint32_t>(phase + 1);
  SetWrites(access, record);
  return std::nullopt;
}

}  // namespace headcount::simt
