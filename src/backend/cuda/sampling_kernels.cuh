// Drawing one token of a row of logits by a block of threads.
//
// Filters are found by radix selection: of a key of 32 bits, the highest ones
// first, a histogram says in which bin the wanted amount is reached. Keys are
// logits for top-k, of which each amounts to 1, and weights for top-p, whose
// amounts are those of sampling_math.h: integers, so that atomics may add them
// in any order.
#pragma once

#include <bit>
#include <cstdint>

#include "backend/cuda/ptx.h"
#include "backend/cuda/reduce.cuh"
#include "backend/cuda/sampling_kernels.h"
#include "backend/sampling_math.h"

namespace headcount::cuda {

inline constexpr int kSampleThreads = 512;
inline constexpr int kSampleWarps = kSampleThreads / 32;
inline constexpr int kRadixBits = 11;
inline constexpr int kBins = 1 << kRadixBits;

// Sums of 64 bits in two words: shared memory adds 32 bits by itself, and 64 in
// a loop in which all that meet in a bin wait for each other (4 ms of a row of
// 128k tokens on an H100).
struct SampleBins {
  uint32_t low[kBins];
  uint32_t high[kBins];

  DEVICE void Clear(int bin) { low[bin] = high[bin] = 0; }
  DEVICE void Add(uint32_t bin, uint64_t amount) {
    const auto added = static_cast<uint32_t>(amount);
    const uint32_t before = atomicAdd(&low[bin], added);
    const uint32_t carry = before + added < before ? 1 : 0;
    const uint32_t rest = static_cast<uint32_t>(amount >> 32) + carry;
    if (rest != 0) atomicAdd(&high[bin], rest);
  }
  DEVICE uint64_t Sum(int bin) const {
    return uint64_t{high[bin]} << 32 | low[bin];
  }
};

struct SampleShared {
  SampleBins bins;
  uint64_t warps[kSampleWarps];
  double warp_sums[kSampleWarps];
  uint64_t found_above;
  int32_t found;
};

DEVICE int SampleThread() { return static_cast<int>(threadIdx.x); }

// Calls use(i) for i in [0, count), each by one thread.
template <class Use>
DEVICE void ForEachOf(int count, Use&& use) {
#pragma unroll 4
  for (int i = SampleThread(); i < count; i += kSampleThreads) use(i);
}

DEVICE uint64_t BlockSum(uint64_t value, SampleShared* shared) {
  return BlockReduce<kSampleThreads>(
      value, shared->warps, [](uint64_t a, uint64_t b) { return a + b; });
}

// Sum of the values of the threads before this one.
DEVICE uint64_t SumBefore(uint64_t value, SampleShared* shared,
                          uint64_t* total) {
  const int lane = SampleThread() % 32;
  const int warp = SampleThread() / 32;
  uint64_t sum = value;
#pragma unroll
  for (unsigned step = 1; step < 32; step *= 2) {
    const uint64_t before = __shfl_up_sync(0xFFFFFFFFu, sum, step);
    if (lane >= static_cast<int>(step)) sum += before;
  }
  __syncthreads();
  if (lane == 31) shared->warps[warp] = sum;
  __syncthreads();
  uint64_t before = sum - value;
  *total = 0;
  for (int i = 0; i < kSampleWarps; ++i) {
    if (i < warp) before += shared->warps[i];
    *total += shared->warps[i];
  }
  return before;
}

// Numbers in the order of the floats; both zeros are one. Not of NaN.
DEVICE uint32_t OrderedBits(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
DEVICE float FromOrderedBits(uint32_t bits) {
  return __uint_as_float((bits >> 31) != 0 ? bits & 0x7FFFFFFFu : ~bits);
}

// --- Selection --------------------------------------------------------------

struct Selection {
  uint32_t key = 0;
  uint64_t above = 0;  // amount of larger keys
};

// The bin, from the highest on, in which the running sum reaches `wanted`, and
// the sum above it. What was in the bins has been added by all threads.
DEVICE Selection FindBin(uint64_t wanted, SampleShared* shared) {
  constexpr int kMine = kBins / kSampleThreads;
  const int highest = kBins - 1 - SampleThread() * kMine;
  uint64_t sum = 0;
#pragma unroll
  for (int i = 0; i < kMine; ++i) sum += shared->bins.Sum(highest - i);
  uint64_t total;
  uint64_t above = SumBefore(sum, shared, &total);
  if (above < wanted && above + sum >= wanted) {
    int bin = highest;
    while (above + shared->bins.Sum(bin) < wanted) {
      above += shared->bins.Sum(bin--);
    }
    shared->found = bin;
    shared->found_above = above;
  }
  __syncthreads();
  return {.key = static_cast<uint32_t>(shared->found),
          .above = shared->found_above};
}

// The largest key such that it and larger ones amount to `wanted`, at least 1
// and at most what all of [0, count) amount to. visit(i, add) calls add(key,
// amount) or not.
template <class Visit>
DEVICE Selection Select(int count, uint64_t wanted, SampleShared* shared,
                        Visit&& visit) {
  Selection selection;
  int bits_left = 32;
  while (bits_left > 0) {
    const int bits = bits_left < kRadixBits ? bits_left : kRadixBits;
    const int shift = bits_left - bits;
    const uint32_t mask = (1u << bits) - 1;
    // Bits of the keys that go on.
    const uint32_t known = bits_left == 32 ? 0 : ~0u << bits_left;
    __syncthreads();
    ForEachOf(kBins, [&](int i) { shared->bins.Clear(i); });
    __syncthreads();
    ForEachOf(count, [&](int i) {
      visit(i, [&](uint32_t key, uint64_t amount) {
        if (((key ^ selection.key) & known) != 0) return;
        shared->bins.Add(key >> shift & mask, amount);
      });
    });
    __syncthreads();
    const Selection bin = FindBin(wanted - selection.above, shared);
    selection.key |= bin.key << shift;
    selection.above += bin.above;
    bits_left = shift;
  }
  return selection;
}

// --- Running sums -----------------------------------------------------------

// Neighbours [begin, end) of a row.
struct TokenRange {
  int begin = 0;
  int end = 0;
};

// Splits `range` over the warps, and returns the part in which the running sum
// of amount(i) exceeds point_of(sum of the range), with the sum in front of
// that part taken off `point`. Empty where it never does.
template <class Amount, class PointOf>
DEVICE TokenRange Narrow(TokenRange range, SampleShared* shared,
                         Amount&& amount, PointOf&& point_of, uint64_t* point) {
  const int warp = SampleThread() / 32;
  const int lane = SampleThread() % 32;
  const int part = (range.end - range.begin + kSampleWarps * 32 - 1) /
                   (kSampleWarps * 32) * 32;
  const auto part_of = [&](int index) {
    const int begin = range.begin + index * part;
    const int end = begin + part;
    return TokenRange{begin, end < range.end ? end : range.end};
  };
  const TokenRange mine = part_of(warp);
  uint64_t sum = 0;
#pragma unroll 4
  for (int i = mine.begin + lane; i < mine.end; i += 32) sum += amount(i);
  sum = WarpReduce(sum, [](uint64_t a, uint64_t b) { return a + b; });
  __syncthreads();
  if (lane == 0) shared->warps[warp] = sum;
  __syncthreads();
  uint64_t total = 0;
  for (int i = 0; i < kSampleWarps; ++i) total += shared->warps[i];
  *point = point_of(total);
  for (int i = 0; i < kSampleWarps; ++i) {
    if (shared->warps[i] > *point) return part_of(i);
    *point -= shared->warps[i];
  }
  return {};
}

// The first i at which the running sum of amount(i) exceeds point_of(sum of
// all); -1 where it never does.
template <class Amount, class PointOf>
DEVICE int FindCrossing(int count, SampleShared* shared, Amount&& amount,
                        PointOf&& point_of) {
  uint64_t point;
  const TokenRange all{.begin = 0, .end = count};
  const TokenRange part = Narrow(all, shared, amount, point_of, &point);
  const uint64_t in_part = point;
  const TokenRange range = Narrow(
      part, shared, amount, [&](uint64_t) { return in_part; }, &point);
  const int lane = SampleThread() % 32;
  int found = -1;
  // Every warp does the same.
  for (int begin = range.begin; begin < range.end; begin += 32) {
    const int i = begin + lane;
    uint64_t sum = i < range.end ? amount(i) : 0;
#pragma unroll
    for (unsigned step = 1; step < 32; step *= 2) {
      const uint64_t before = __shfl_up_sync(0xFFFFFFFFu, sum, step);
      if (lane >= static_cast<int>(step)) sum += before;
    }
    const uint32_t above = __ballot_sync(0xFFFFFFFFu, sum > point);
    if (above != 0) {
      found = begin + __ffs(static_cast<int>(above)) - 1;
      break;
    }
    point -= __shfl_sync(0xFFFFFFFFu, sum, 31);
  }
  __syncthreads();  // what the amounts are made of may be written again
  return found;
}

// What is kept of a row: keys above the selected one, and of those equal to it
// the ones up to a token.
struct KeptTokens {
  uint32_t key = 0;
  int last = -1;
  DEVICE bool Has(uint32_t other, int token) const {
    return other > key || (other == key && token <= last);
  }
};

// Of `count` tokens, of whose selected keys the first `equal` are kept.
template <class Key>
DEVICE KeptTokens KeepEqual(int count, uint32_t selected, uint64_t equal,
                            SampleShared* shared, Key&& key) {
  const int last = FindCrossing(
      count, shared,
      [&](int i) { return static_cast<uint64_t>(key(i) == selected); },
      [&](uint64_t) { return equal - 1; });
  return {.key = selected, .last = last < 0 ? count : last};
}

// --- A row ------------------------------------------------------------------

// A pass over the model's own logits.
struct LogitStats {
  bool finite = false;
  double log_sum = 0;
};

// log of the sum of exp, as far as a thread has come.
struct RunningExp {
  float highest = -INFINITY;
  float sum = 0;
  bool finite = true;

  DEVICE void Add(float logit) {
    constexpr float kLog2e = 1.44269504f;
    finite = finite && logit < INFINITY;  // NaN is not
    if (logit > highest) {
      sum = sum * ptx::Exp2((highest - logit) * kLog2e) + 1.0f;
      highest = logit;
    } else if (logit > -INFINITY) {
      sum += ptx::Exp2((logit - highest) * kLog2e);
    }
  }
};

class RowSampler {
 public:
  DEVICE RowSampler(const SampleParams& params, SampleShared* shared)
      : params_(params),
        row_(params.rows[blockIdx.x]),
        logits_(params.logits +
                static_cast<int64_t>(row_.logits_row) * params.vocab),
        scratch_(params.scratch +
                 static_cast<int64_t>(blockIdx.x) * params.vocab),
        vocab_(params.vocab),
        shared_(shared) {}

  DEVICE DeviceSampleResult Draw() {
    const LogitStats stats = PassLogits();
    DeviceSampleResult result;
    result.finite = stats.finite ? 1 : 0;
    if (!stats.finite) return result;
    Adjust();
    result.token = row_.temperature <= 0 ? FindHighest().token : DrawByWeight();
    if (result.token >= 0) {
      result.logprob = static_cast<float>(
          static_cast<double>(logits_[result.token]) - stats.log_sum);
    }
    return result;
  }

 private:
  struct Highest {
    float logit;
    int token;           // the lowest; -1 where all are taken out
    uint32_t of_thread;  // OrderedBits of the highest that this thread saw
  };

  DEVICE LogitStats PassLogits() const {
    RunningExp mine;
    ForEachOf(vocab_, [&](int i) { mine.Add(logits_[i]); });
    const uint64_t broken = BlockSum(mine.finite ? 0 : 1, shared_);
    const float highest =
        FromOrderedBits(static_cast<uint32_t>(BlockReduce<kSampleThreads>(
            uint64_t{OrderedBits(mine.highest)}, shared_->warps, MaxOf)));
    LogitStats stats{.finite = broken == 0 && highest > -INFINITY};
    if (!stats.finite) return stats;
    const float shrink = ptx::Exp2((mine.highest - highest) * 1.44269504f);
    const double sum = BlockReduce<kSampleThreads>(
        static_cast<double>(mine.sum) * static_cast<double>(shrink),
        shared_->warp_sums, [](double a, double b) { return a + b; });
    stats.log_sum = static_cast<double>(highest) + log(sum);
    return stats;
  }

  // Leaves in `scratch_` the logits to draw from. Taking out what is not
  // allowed comes first here: nothing brings a token back.
  DEVICE void Adjust() const {
    const bool some = row_.allowed.count > 0;
    ForEachOf(vocab_,
              [&](int i) { scratch_[i] = some ? -INFINITY : logits_[i]; });
    __syncthreads();
    ForEachOf(row_.allowed.count, [&](int i) {
      const int32_t token = params_.allowed[row_.allowed.begin + i];
      scratch_[token] = logits_[token];
    });
    __syncthreads();
    const TokenPenalties penalties{.repetition = row_.repetition_penalty,
                                   .frequency = row_.frequency_penalty,
                                   .presence = row_.presence_penalty};
    ForEachOf(row_.uses.count, [&](int i) {
      const TokenUse use = params_.uses[row_.uses.begin + i];
      scratch_[use.token] =
          PenalisedLogit(scratch_[use.token], penalties, use.generated);
    });
    __syncthreads();
    ForEachOf(row_.biases.count, [&](int i) {
      const TokenBias bias = params_.biases[row_.biases.begin + i];
      scratch_[bias.token] += bias.bias;
    });
    __syncthreads();
    ForEachOf(row_.banned.count, [&](int i) {
      scratch_[params_.banned[row_.banned.begin + i]] = -INFINITY;
    });
    __syncthreads();
  }

  DEVICE Highest FindHighest() const {
    uint64_t mine = 0;  // the logit, and below it the inverse of the token
    ForEachOf(vocab_, [&](int i) {
      const uint64_t next =
          uint64_t{OrderedBits(scratch_[i])} << 32 | ~static_cast<uint32_t>(i);
      mine = MaxOf(mine, next);
    });
    const uint64_t best =
        BlockReduce<kSampleThreads>(mine, shared_->warps, MaxOf);
    const float logit = FromOrderedBits(static_cast<uint32_t>(best >> 32));
    const auto token = static_cast<int>(~static_cast<uint32_t>(best));
    return {.logit = logit,
            .token = logit > -INFINITY ? token : -1,
            .of_thread = static_cast<uint32_t>(mine >> 32)};
  }

  DEVICE int DrawByWeight() const {
    const Highest highest = FindHighest();
    if (highest.token < 0) return -1;
    KeptTokens kept{.key = 0, .last = vocab_};  // all
    if (row_.top_k > 0 && row_.top_k < vocab_) kept = KeepTopK(highest);
    uint64_t sum = 0;
    ForEachOf(vocab_, [&](int i) {
      const float logit = scratch_[i];
      const float weight =
          kept.Has(OrderedBits(logit), i)
              ? TokenWeight(logit, highest.logit, row_.temperature)
              : 0.0f;
      scratch_[i] = weight;
      sum += WeightUnits(weight);
    });
    sum = BlockSum(sum, shared_);
    if (sum == 0) return -1;
    kept = {.key = 0, .last = vocab_};
    if (row_.top_p < 1) kept = KeepTopP(sum);
    return FindCrossing(
        vocab_, shared_,
        [&](int i) {
          const float weight = scratch_[i];
          const bool stays =
              kept.Has(__float_as_uint(weight), i) && weight >= row_.min_p;
          return stays ? WeightUnits(weight) : 0;
        },
        [&](uint64_t total) {
          return DrawPoint(UniformBits(row_.seed, row_.position), total);
        });
  }

  // The first top_k in the order of falling logits and rising tokens.
  DEVICE KeptTokens KeepTopK(const Highest& highest) const {
    const auto wanted = static_cast<uint64_t>(row_.top_k);
    // So many threads have seen such a logit, so there are as many of them:
    // lower ones, which are nearly all, stay out of the histogram.
    uint32_t least = 0;
    if (row_.top_k <= kSampleThreads) {
      least = Select(kSampleThreads, wanted, shared_, [&](int, auto&& add) {
                add(highest.of_thread, 1);
              }).key;
    }
    const auto key = [&](int i) { return OrderedBits(scratch_[i]); };
    const Selection selection =
        Select(vocab_, wanted, shared_, [&](int i, auto&& add) {
          if (key(i) >= least) add(key(i), 1);
        });
    return KeepEqual(vocab_, selection.key, wanted - selection.above, shared_,
                     key);
  }

  // The first, in the order of falling weights and rising tokens, that together
  // reach top_p of `sum`.
  DEVICE KeptTokens KeepTopP(uint64_t sum) const {
    const uint64_t wanted = WantedWeight(row_.top_p, sum);
    // Even all together, tokens below this weigh no more than what may be
    // missing.
    const uint64_t least = (sum - wanted) / static_cast<uint64_t>(vocab_);
    const Selection selection =
        Select(vocab_, wanted, shared_, [&](int i, auto&& add) {
          const float weight = scratch_[i];
          const uint64_t units = WeightUnits(weight);
          if (units > 0 && units >= least) {
            add(__float_as_uint(weight), units);
          }
        });
    const uint64_t units = WeightUnits(__uint_as_float(selection.key));
    const uint64_t equal = (wanted - selection.above + units - 1) / units;
    return KeepEqual(vocab_, selection.key, equal, shared_,
                     [&](int i) { return __float_as_uint(scratch_[i]); });
  }

  DEVICE static uint64_t MaxOf(uint64_t a, uint64_t b) { return a > b ? a : b; }

  const SampleParams& params_;
  const DeviceSampleRow row_;
  const float* logits_;
  float* scratch_;
  int vocab_;
  SampleShared* shared_;
};

__global__ void __launch_bounds__(kSampleThreads)
    SampleRows(const __grid_constant__ SampleParams params) {
  HEADCOUNT_SHARED(shared);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  RowSampler sampler(params, reinterpret_cast<SampleShared*>(shared));
  const DeviceSampleResult result = sampler.Draw();
  if (SampleThread() == 0) params.results[blockIdx.x] = result;
}

}  // namespace headcount::cuda
