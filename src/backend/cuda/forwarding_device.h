// A device that does all things on another. What derives from it does some of
// them in its own way.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/cuda/device.h"

namespace headcount::cuda {

// `device` outlives it. Threads: as `device`.
class ForwardingDevice : public Device {
 public:
  explicit ForwardingDevice(Device* device) : device_(*device) {}

  std::string name() const override { return device_.name(); }
  int multiprocessors() const override { return device_.multiprocessors(); }
  int64_t FreeBytes() const override { return device_.FreeBytes(); }
  absl::Status status() const override { return device_.status(); }
  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    return device_.Allocate(bytes);
  }
  void Free(void* memory) override { device_.Free(memory); }
  void* AllocateHost(int64_t bytes) override {
    return device_.AllocateHost(bytes);
  }
  void FreeHost(void* memory) override { device_.FreeHost(memory); }
  void Fill(const void* host, int64_t bytes, void* device) override {
    device_.Fill(host, bytes, device);
  }
  void Upload(const void* host, int64_t bytes, void* device) override {
    device_.Upload(host, bytes, device);
  }
  void Download(const void* device, int64_t bytes, void* host) override {
    device_.Download(device, bytes, host);
  }
  void Zero(void* device, int64_t bytes) override {
    device_.Zero(device, bytes);
  }
  void Issue(const LaunchCall& call) override { device_.Issue(call); }
  std::unique_ptr<Graph> MakeGraph(
      absl::Span<const LaunchCall> calls) override {
    return device_.MakeGraph(calls);
  }
  void BeginRange(const char* name) override { device_.BeginRange(name); }
  void EndRange() override { device_.EndRange(); }
  void Synchronize() override { device_.Synchronize(); }

 protected:
  Device& device_;
};

}  // namespace headcount::cuda
