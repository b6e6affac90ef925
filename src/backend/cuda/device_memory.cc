#include "backend/cuda/device_memory.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "base/check.h"

namespace headcount::cuda {
namespace {

// Rounded up to a multiple of a quarter of the power of two below, or of 256.
int64_t RoomFor(size_t bytes) {
  const size_t unit = std::max<size_t>(std::bit_floor(bytes) / 4, 256);
  return static_cast<int64_t>((bytes + unit - 1) / unit * unit);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceBuffer>> DeviceBuffer::Create(
    Device* device, int64_t bytes) {
  // An empty buffer has an address, too.
  absl::StatusOr<void*> data = device->Allocate(std::max<int64_t>(bytes, 1));
  if (!data.ok()) return data.status();
  return std::unique_ptr<DeviceBuffer>(new DeviceBuffer(device, *data, bytes));
}

GrowingMemory::~GrowingMemory() {
  if (data_ != nullptr) device_->Free(data_);
}

absl::Status GrowingMemory::Reserve(int64_t bytes) {
  if (bytes <= bytes_) return absl::OkStatus();
  absl::StatusOr<void*> data = device_->Allocate(bytes);
  if (!data.ok()) return data.status();
  device_->Synchronize();
  if (data_ != nullptr) device_->Free(data_);
  data_ = *data;
  bytes_ = bytes;
  return absl::OkStatus();
}

bool GrowingMemory::Grow(int64_t bytes) {
  if (bytes <= bytes_) return false;
  // More than that, so that growth ends soon.
  const absl::Status room = Reserve(std::max(bytes, bytes_ + bytes_ / 2));
  CHECK(room.ok() || !device_->status().ok())
      << "scratch memory of a step: " << room;
  return room.ok();
}

StepUpload::~StepUpload() {
  if (here_ != nullptr) device_->FreeHost(here_);
}

int64_t StepUpload::AddBytes(const void* values, size_t bytes) {
  const int64_t place = size_;
  const int64_t room = RoomFor(bytes);
  const int64_t end = place + room;
  if (end > capacity_) {
    capacity_ = std::max(end, 2 * capacity_);
    auto* larger = static_cast<std::byte*>(device_->AllocateHost(capacity_));
    if (here_ != nullptr) {
      std::memcpy(larger, here_, static_cast<size_t>(size_));
      device_->FreeHost(here_);
    }
    here_ = larger;
  }
  if (bytes > 0) std::memcpy(here_ + place, values, bytes);
  std::memset(here_ + place + bytes, 0, static_cast<size_t>(room) - bytes);
  size_ = end;
  return place;
}

void StepUpload::Send() {
  there_.Grow(size_);
  if (size_ > 0) device_->Upload(here_, size_, there_.data<std::byte>());
}

}  // namespace headcount::cuda
