#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace headcount {
namespace {

constexpr double kPi = std::numbers::pi;

double Llama3Frequency(const RopeConfig& config, double frequency) {
  const auto old_context = static_cast<double>(config.original_max_positions);
  const double wavelength = 2.0 * kPi / frequency;
  if (wavelength > old_context / config.low_freq_factor) {
    return frequency / config.factor;
  }
  if (wavelength < old_context / config.high_freq_factor) return frequency;
  const double smooth = (old_context / wavelength - config.low_freq_factor) /
                        (config.high_freq_factor - config.low_freq_factor);
  return (1.0 - smooth) * frequency / config.factor + smooth * frequency;
}

// The ends of YaRN's ramp, as indices of pairs: below `low` frequencies are
// kept, above `high` they are divided by the factor.
struct YarnRamp {
  double low = 0;
  double high = 0;

  double At(double pair) const {
    // As in transformers: the ends must not fall together.
    const double width = high == low ? 0.001 : high - low;
    return std::clamp((pair - low) / width, 0.0, 1.0);
  }
};

YarnRamp MakeYarnRamp(const RopeConfig& config, int head_dim) {
  // The pair that turns `rotations` times within the original context.
  const auto pair_of = [&](double rotations) {
    return head_dim *
           std::log(static_cast<double>(config.original_max_positions) /
                    (rotations * 2.0 * kPi)) /
           (2.0 * std::log(config.theta));
  };
  YarnRamp ramp{.low = pair_of(config.beta_fast),
                .high = pair_of(config.beta_slow)};
  if (config.truncate) {
    ramp.low = std::floor(ramp.low);
    ramp.high = std::ceil(ramp.high);
  }
  ramp.low = std::max(ramp.low, 0.0);
  ramp.high = std::min(ramp.high, static_cast<double>(head_dim - 1));
  return ramp;
}

double YarnScale(const RopeConfig& config) {
  if (config.attention_factor != 0.0) return config.attention_factor;
  const auto mscale = [&](double weight) {
    return config.factor <= 1.0 ? 1.0
                                : 0.1 * weight * std::log(config.factor) + 1.0;
  };
  if (config.mscale != 0.0 && config.mscale_all_dim != 0.0) {
    return mscale(config.mscale) / mscale(config.mscale_all_dim);
  }
  return mscale(1.0);
}

}  // namespace

Rope MakeRope(const RopeConfig& config, int head_dim) {
  Rope rope;
  const bool yarn = config.type == RopeType::kYarn;
  const YarnRamp ramp = yarn ? MakeYarnRamp(config, head_dim) : YarnRamp{};
  for (int pair = 0; pair < head_dim / 2; ++pair) {
    double frequency =
        std::pow(config.theta, -2.0 * pair / static_cast<double>(head_dim));
    switch (config.type) {
      case RopeType::kDefault:
        break;
      case RopeType::kLinear:
        frequency /= config.factor;
        break;
      case RopeType::kLlama3:
        frequency = Llama3Frequency(config, frequency);
        break;
      case RopeType::kYarn: {
        const double divided = ramp.At(pair);
        frequency =
            frequency / config.factor * divided + frequency * (1.0 - divided);
        break;
      }
    }
    if (!config.divisors.empty()) {
      frequency /= config.divisors[static_cast<size_t>(pair)];
    }
    rope.inverse_frequency.push_back(static_cast<float>(frequency));
  }
  if (yarn) rope.scale = static_cast<float>(YarnScale(config));
  return rope;
}

}  // namespace headcount
