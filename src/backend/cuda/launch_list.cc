#include "backend/cuda/launch_list.h"

#include <cstring>
#include <functional>
#include <string_view>

namespace headcount::cuda {

void LaunchList::Clear() {
  heads_.clear();
  params_.clear();
}

void LaunchList::Add(const LaunchCall& call) {
  constexpr size_t kAlign = 16;
  const size_t place = params_.size();
  const auto bytes = static_cast<size_t>(call.params_bytes);
  // What is between the parameters is 0, so that all can be compared at once.
  params_.resize(place + (bytes + kAlign - 1) / kAlign * kAlign);
  std::memcpy(params_.data() + place, call.params, bytes);
  Head& head = heads_.emplace_back();
  head.call = call;
  head.call.params = nullptr;
  head.place = static_cast<int64_t>(place);
}

LaunchCall LaunchList::at(size_t index) const {
  LaunchCall call = heads_[index].call;
  call.params = params_.data() + heads_[index].place;
  return call;
}

std::vector<LaunchCall> LaunchList::calls() const {
  std::vector<LaunchCall> calls;
  calls.reserve(size());
  for (size_t i = 0; i < size(); ++i) calls.push_back(at(i));
  return calls;
}

void LaunchList::FindDifferent(const LaunchList& other, size_t most,
                               std::vector<size_t>* different) const {
  different->clear();
  // Lists of the same shape have as many bytes.
  if (std::memcmp(params_.data(), other.params_.data(), params_.size()) == 0) {
    return;
  }
  for (size_t i = 0; i < size() && different->size() <= most; ++i) {
    if (std::memcmp(at(i).params, other.at(i).params,
                    static_cast<size_t>(heads_[i].call.params_bytes)) != 0) {
      different->push_back(i);
    }
  }
}

size_t LaunchList::Hash() const {
  size_t hash = std::hash<std::string_view>()(
      {reinterpret_cast<const char*>(params_.data()), params_.size()});
  for (const Head& head : heads_) {
    hash = hash * 1'000'003 + reinterpret_cast<size_t>(head.call.kernel);
    hash = hash * 1'000'003 + static_cast<size_t>(head.call.grid);
  }
  return hash;
}

bool LaunchList::Head::operator==(const Head& other) const {
  return call.kernel == other.call.kernel && call.grid == other.call.grid &&
         call.threads == other.call.threads &&
         call.shared_bytes == other.call.shared_bytes &&
         call.params_bytes == other.call.params_bytes;
}

}  // namespace headcount::cuda
