#include "model/rope.h"

#include <cmath>
#include <cstddef>

#include "gtest/gtest.h"

namespace headcount {
namespace {

struct ExpectedFrequency {
  size_t pair;
  double value;
};

// The expected values are those of the formulas in transformers'
// modeling_rope_utils.py, evaluated in Python; the golden tests compare whole
// models.
template <size_t N>
void ExpectFrequencies(const Rope& rope,
                       const ExpectedFrequency (&expected)[N]) {
  for (const ExpectedFrequency& frequency : expected) {
    EXPECT_FLOAT_EQ(rope.inverse_frequency[frequency.pair],
                    static_cast<float>(frequency.value))
        << "pair " << frequency.pair;
  }
}

TEST(Rope, FallsByEqualRatiosByDefault) {
  RopeConfig config;
  config.theta = 10000.0;
  const Rope rope = MakeRope(config, 8);
  ASSERT_EQ(rope.inverse_frequency.size(), 4u);
  ExpectFrequencies(rope, {{0, 1.0}, {1, 0.1}, {2, 0.01}, {3, 0.001}});
  EXPECT_EQ(rope.scale, 1.0f);
}

TEST(Rope, IsDividedByTheFactorIfLinear) {
  RopeConfig config;
  config.type = RopeType::kLinear;
  config.factor = 4.0;
  ExpectFrequencies(MakeRope(config, 8),
                    {{0, 0.25}, {1, 0.025}, {2, 0.0025}, {3, 0.00025}});
}

TEST(Rope, KeepsShortWavelengthsOfLlama31AndDividesLongOnes) {
  RopeConfig config;
  config.type = RopeType::kLlama3;
  config.theta = 500000.0;
  config.factor = 8.0;
  config.low_freq_factor = 1.0;
  config.high_freq_factor = 4.0;
  config.original_max_positions = 8192;
  const Rope rope = MakeRope(config, 128);
  ASSERT_EQ(rope.inverse_frequency.size(), 64u);
  ExpectFrequencies(rope, {{0, 1.0},
                           {1, 0.8146172338565447},
                           {28, 0.0032114459947525913},
                           {29, 0.002166570763503359},
                           {32, 0.0005248461609929547},
                           {35, 9.556212353964683e-05},
                           {36, 7.78465527393245e-05},
                           {63, 3.068925988914511e-07}});
  EXPECT_EQ(rope.scale, 1.0f);
}

TEST(Rope, RampsBetweenKeptAndDividedOnesWithYarn) {
  RopeConfig config;
  config.type = RopeType::kYarn;
  config.theta = 1e6;
  config.factor = 4.0;
  config.original_max_positions = 32768;
  const Rope rope = MakeRope(config, 128);
  ExpectFrequencies(rope, {{0, 1.0},
                           {1, 0.8058421877614819},
                           {22, 0.008659643233600653},
                           {23, 0.006978305848598663},
                           {24, 0.005375321490790102},
                           {30, 0.0010643609812470017},
                           {39, 6.490394320837028e-05},
                           {40, 4.445698525097307e-05},
                           {63, 3.102344401879299e-07}});
  EXPECT_FLOAT_EQ(rope.scale, 1.138629436111989f);
}

TEST(Rope, ScalesByTheFactorsThatYarnNames) {
  RopeConfig config;
  config.type = RopeType::kYarn;
  config.factor = 40.0;
  config.original_max_positions = 4096;
  config.mscale = 0.707;
  config.mscale_all_dim = 1.0;
  EXPECT_FLOAT_EQ(MakeRope(config, 64).scale, 0.9210423553163399f);
  config.mscale_all_dim = 0.0;  // both or none
  EXPECT_FLOAT_EQ(MakeRope(config, 64).scale,
                  static_cast<float>(0.1 * std::log(40.0) + 1.0));
  config.attention_factor = 0.75;
  EXPECT_FLOAT_EQ(MakeRope(config, 64).scale, 0.75f);
  config.attention_factor = 0.0;
  config.factor = 0.5;
  EXPECT_FLOAT_EQ(MakeRope(config, 64).scale, 1.0f);
}

TEST(Rope, KeepsFractionalEndsOfYarnsRampUnlessTruncated) {
  RopeConfig config;
  config.type = RopeType::kYarn;
  config.theta = 10000.0;
  config.factor = 4.0;
  config.original_max_positions = 32;
  config.truncate = false;
  ExpectFrequencies(MakeRope(config, 16), {{0, 1.0},
                                           {1, 0.14849024701094485},
                                           {2, 0.025},
                                           {7, 7.905694150420948e-05}});
}

}  // namespace
}  // namespace headcount
