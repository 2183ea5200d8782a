// How the bits of a level are predicted (docs/format.md 3.13): one model for both directions.
#pragma once
#include <algorithm>
#include <cstdint>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "limosa/context_coder.hpp"

namespace limosa::adaptive {

constexpr uint8_t kTrellis[8][2] = {{0, 2}, {7, 5}, {1, 3}, {6, 4}, {2, 0}, {5, 7}, {3, 1}, {4, 6}};

// Probabilities have 16 bits; logits have 8 fractional bits and stay within +-kMaxLogit.
constexpr int kMaxLogit = 2047;
constexpr unsigned kMaxCount = 1023;  // of a slot
constexpr unsigned kMaxColumnCount = 100;
constexpr unsigned kFirstRowCount = 8, kMaxRowCount = 256;
constexpr unsigned kMaxSteps = 120;           // after which the mixer learns at its slowest
constexpr uint32_t kMaxMagnitude = 1u << 18;  // in the averages

// One node for each question that a level is asked.
constexpr unsigned kNodeZero = 0, kNodeSign = 2, kNodeClass = 3, kNodeBit = 31, kNodes = 60;
constexpr unsigned kMaxClass = kMaxLevelBits - 1;

// First context of each input; the last input is the Laplace distribution and has none.
constexpr unsigned kSmooth = 0, kOwn = 64, kColumn = 320, kPredicted = 384, kRecent = 624, kNear = 880,
                   kSigns = 1392, kContexts = 1824;
constexpr unsigned kInputs = 7, kMixed = 8, kTaps = 8;
constexpr int32_t kFirstWeight = 1 << 17;

struct Tables {
  uint16_t probability[2 * kMaxLogit + 1];  // of a logit + kMaxLogit
  int16_t logit[4096];                      // of a probability / 16
  int16_t survival[kMaxLogit + 1];          // logit of exp(-u / 256)
  uint32_t slot_rate[kMaxCount + 1], average_rate[kMaxRowCount + 1], next_count[kMaxCount + 1];
  int32_t mixer_rate[kMaxSteps + 1];

  Tables() {
    uint64_t x = uint64_t{1} << 32;  // 2^32 exp(-u / 256)
    uint32_t falling[kMaxLogit + 1];
    for (int u = 0; u <= kMaxLogit; ++u) {
      falling[u] = static_cast<uint32_t>(x >> 16);
      const auto p = static_cast<uint16_t>((uint64_t{1} << 48) / ((uint64_t{1} << 32) + x));
      probability[kMaxLogit + u] = p;
      probability[kMaxLogit - u] = static_cast<uint16_t>(65536 - p);
      x = x * 4278222805u >> 32;
    }
    for (int i = 0, at = 0; i < 4096; ++i) {
      while (at < 2 * kMaxLogit && probability[at + 1] <= 16 * i + 8) ++at;
      logit[i] = static_cast<int16_t>(at - kMaxLogit);
    }
    for (int u = 0; u <= kMaxLogit; ++u) survival[u] = logit[std::min(falling[u] >> 4, 4095u)];
    for (unsigned k = 0; k <= kMaxCount; ++k) {
      slot_rate[k] = 131072 / (2 * k + 3);
      next_count[k] = std::min(k + 1, kMaxCount);
    }
    for (unsigned k = 1; k <= kMaxRowCount; ++k) average_rate[k] = 65536 / k;
    average_rate[0] = 0;
    for (unsigned k = 0; k <= kMaxSteps; ++k) mixer_rate[k] = static_cast<int32_t>(std::max(24u, 3200 / (k + 16)));
  }
};

inline const Tables& tables() {
  static const Tables t;
  return t;
}

// log2 in sixteenths, linear between powers of two; v >= 1.
inline int log16(uint64_t v) {
  const unsigned b = bit_length(v) - 1;
  const uint64_t low = b >= 4 ? v >> (b - 4) : v << (4 - b);
  return static_cast<int>(16 * b + (low & 15));
}

inline int clamp(int64_t v, int64_t most) { return static_cast<int>(std::max(-most, std::min(most, v))); }

inline uint32_t magnitude(int32_t q) { return static_cast<uint32_t>(q < 0 ? -q : q); }

// Weights of the predictions, 20 fractional bits; sums modulo 2^32.
struct Mixer {
  alignas(16) int32_t weights[kMixed];
  uint32_t steps;
};

#ifdef __SSE2__
// Kept in a register: a load right behind eight narrow stores would wait for them.
using Logits = __m128i;

template <class F>
inline Logits gather(F&& f) {
  return _mm_setr_epi16(f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7));
}

inline int32_t mix(const Mixer& mixer, Logits logits) {
  const auto* w = reinterpret_cast<const __m128i*>(mixer.weights);
  const __m128i narrow = _mm_packs_epi32(_mm_srai_epi32(w[0], 7), _mm_srai_epi32(w[1], 7));
  __m128i sum = _mm_madd_epi16(narrow, logits);
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
  return _mm_cvtsi128_si32(sum) >> 13;
}

inline void correct(Mixer& mixer, Logits logits, int16_t error) {
  auto* w = reinterpret_cast<__m128i*>(mixer.weights);
  const __m128i e = _mm_set1_epi16(error), half = _mm_set1_epi32(256);
  const __m128i low = _mm_mullo_epi16(logits, e), high = _mm_mulhi_epi16(logits, e);
  w[0] = _mm_add_epi32(w[0], _mm_srai_epi32(_mm_add_epi32(_mm_unpacklo_epi16(low, high), half), 9));
  w[1] = _mm_add_epi32(w[1], _mm_srai_epi32(_mm_add_epi32(_mm_unpackhi_epi16(low, high), half), 9));
}
#else
struct Logits {
  int16_t of[kMixed];
};

template <class F>
inline Logits gather(F&& f) {
  Logits logits;
  for (unsigned k = 0; k < kMixed; ++k) logits.of[k] = f(k);
  return logits;
}

inline int32_t mix(const Mixer& mixer, const Logits& logits) {
  int32_t sum = 0;
  for (unsigned k = 0; k < kMixed; ++k)
    sum += std::max(-32768, std::min(32767, mixer.weights[k] >> 7)) * logits.of[k];
  return sum >> 13;
}

inline void correct(Mixer& mixer, const Logits& logits, int16_t error) {
  for (unsigned k = 0; k < kMixed; ++k) {
    const auto step = static_cast<uint32_t>((logits.of[k] * error + 256) >> 9);
    mixer.weights[k] = static_cast<int32_t>(static_cast<uint32_t>(mixer.weights[k]) + step);
  }
}
#endif

struct Column {
  uint32_t magnitude;  // averages, 12 fractional bits
  int32_t value;
  uint32_t count;
};

// Bytes of what a Model keeps outside itself.
inline size_t memory_size(size_t n, size_t columns) {
  return kContexts * kNodes * sizeof(uint32_t) + std::min(columns, n) * sizeof(Column);
}

// What is known before each level and how its bits are predicted; the same code in both directions.
template <class Coder>
class Model {
 public:
  Model(Coder& coder, void* memory, size_t n, size_t columns, size_t first_column, bool dependent, uint32_t scale)
      : coder_(coder), t_(tables()), slots_(static_cast<uint32_t*>(memory)),
        columns_(reinterpret_cast<Column*>(slots_ + kContexts * kNodes)), width_(std::min(columns, n)),
        stride_(std::min(columns, n + 1)), row_length_(columns), x_(first_column), dependent_(dependent),
        log_scale_(log16(scale)), recent_(scale), row_level_(scale), row_column_(scale) {
    std::fill(slots_, slots_ + kContexts * kNodes, 0);
    std::fill(columns_, columns_ + width_, Column{scale, 0, 0});
    for (Mixer& mixer : mixers_) {
      std::fill(mixer.weights, mixer.weights + kMixed, kFirstWeight);
      mixer.steps = 0;
    }
    near_shift_ = static_cast<unsigned>(std::max(0, log_scale_ / 16 - 13));  // magnitudes about the mean are 2 and 3
  }

  // Codes levels[i], after all before it; returns it.
  int32_t level(const int32_t* levels, size_t i) {
    if (x_ == row_length_) {
      x_ = 0;
      row_count_ = std::min(row_count_, kFirstRowCount);
    }
    const size_t c = stride_;
    const auto before = [&](size_t distance) { return i >= distance ? levels[i - distance] : 0; };
    Column& own = columns_[slot_];
    const uint32_t left = slot_ ? columns_[slot_ - 1].magnitude : own.magnitude;
    const uint32_t right = slot_ + 1 < width_ ? columns_[slot_ + 1].magnitude : own.magnitude;
    const auto smooth = static_cast<uint32_t>((2 * uint64_t{own.magnitude} + left + right) >> 2);
    const uint64_t scale = std::max<uint64_t>(1, uint64_t{smooth} * ratio_ >> 16);
    const uint64_t own_scale = uint64_t{own.magnitude} * ratio_ >> 16;
    slope_ = (uint64_t{1} << 32) / scale;

    // A linear prediction of the level over its scale, 8 fractional bits.
    const uint64_t inverse = (uint64_t{1} << 32) / (scale + 1229);
    const auto normal = [&](int64_t q) { return clamp(q * static_cast<int64_t>(inverse) >> 12, 768); };
    const int32_t previous = before(1), second = before(2), above = before(c);
    const int tap[kTaps] = {normal(previous), normal(second), normal(before(3)), normal(above),
                            normal(c > 1 ? before(c - 1) : 0), normal(before(c + 1)), normal(before(2 * c)),
                            clamp(own.value * static_cast<int64_t>(inverse) >> 24, 768)};
    int64_t sum = 0;
    for (unsigned k = 0; k < kTaps; ++k) sum += tap_weights_[k] * tap[k];
    const int predicted = clamp(sum >> 16, 1024);

    const auto relative = [&](int log, int step, int most) {
      return static_cast<unsigned>(std::max(0, std::min(most, (log - log_scale_ + 64) / step)));
    };
    const int log = log16(scale), log_own = log16(std::max<uint64_t>(1, own_scale));
    uint32_t* at[kInputs];
    const auto use = [&](unsigned input, unsigned context) { at[input] = slots_ + context * kNodes; };
    use(0, kSmooth + relative(log, 2, 63));
    use(1, kOwn + (state_ >> 1) * 64 + relative(log_own, 2, 63));
    use(2, kColumn + relative(log16(std::max(1u, own.magnitude)), 2, 63));
    use(3, kPredicted + step_of(predicted) * 16 + relative(log, 8, 15));
    use(4, kRecent + relative(log_own, 8, 15) * 16 + relative(log16(std::max(1u, recent_)), 8, 15));
    use(5, kNear + (near(previous) * 8 + near(second)) * 8 + near(above));
    use(6, kSigns + ((sign(previous) * 3 + sign(second)) * 3 + sign(above)) * 16 + relative(log, 8, 15));

    const unsigned parity = state_ & 1;
    int32_t q = Coder::kEncodes ? levels[i] : 0;
    uint32_t m = magnitude(q);
    if (node(at, kNodeZero + parity, t_.survival[steepness(0)], m != 0)) {
      const unsigned negative = node(at, kNodeSign, 0, q < 0);
      const unsigned top = m ? bit_length(m) - 1 : 0;  // of the level, when encoding
      unsigned e = 0;
      while (e < kMaxClass && node(at, e ? kNodeClass + 1 + e : kNodeClass + parity, t_.survival[steepness(e + 1)],
                                   e < top))
        ++e;
      uint32_t value = 1;
      for (unsigned k = e; k-- > 0;) {
        const unsigned bit = m >> k & 1;
        const int laplace = -steepness(k + 1);
        value = value << 1 | (k + 1 == e ? node(at, kNodeBit + e, laplace, bit)
                                         : coder_.code(t_.probability[laplace + kMaxLogit], bit));
      }
      m = value;
      q = negative ? -static_cast<int32_t>(value) : static_cast<int32_t>(value);
    } else {
      m = 0;
      q = 0;
    }
    if (dependent_) state_ = kTrellis[state_][m & 1];
    learn(own, smooth, tap, predicted, normal(q), q, parity);
    return q;
  }

 private:
  // 256 * 2^(k-1) over the scale: how much the logit of a Laplace distribution falls over 2^(k-1) levels.
  int steepness(unsigned k) const { return static_cast<int>(std::min<uint64_t>(kMaxLogit, (slope_ << k) >> 13)); }

  static unsigned step_of(int predicted) {
    constexpr int kLimits[] = {1, 2, 3, 5, 8, 12, 18};
    const int a = ((predicted < 0 ? -predicted : predicted) + 8) >> 4;
    unsigned step = 0;
    for (const int limit : kLimits) step += a >= limit;
    return predicted < 0 ? 7 - step : 7 + step;
  }

  static unsigned sign(int32_t q) { return q > 0 ? 2 : q < 0 ? 1 : 0; }

  unsigned near(int32_t q) const {
    const uint32_t m = magnitude(q) >> near_shift_;
    if (m < 3) return m;
    return m < 4 ? 3 : m < 6 ? 4 : m < 9 ? 5 : m < 14 ? 6 : 7;
  }

  // One bit of a level: mixes the predictions, codes, and corrects weights and slots.
  unsigned node(uint32_t* const* at, unsigned n, int laplace, unsigned bit) {
    uint32_t slot[kInputs];
    for (unsigned k = 0; k < kInputs; ++k) slot[k] = at[k][n];
    const uint32_t fresh = uint32_t{t_.probability[laplace + kMaxLogit]} << 16 | 1;
    for (unsigned k = 0; k < kInputs; ++k) slot[k] = slot[k] ? slot[k] : fresh;
    const Logits logits =
        gather([&](unsigned k) { return k < kInputs ? t_.logit[slot[k] >> 20] : static_cast<int16_t>(laplace); });
    Mixer& mixer = mixers_[n];
    const uint32_t p = t_.probability[clamp(mix(mixer, logits), kMaxLogit) + kMaxLogit];
    bit = coder_.code(p, bit);
    const int32_t error = static_cast<int32_t>(bit << 16) - static_cast<int32_t>(p);
    correct(mixer, logits, static_cast<int16_t>(error * t_.mixer_rate[mixer.steps] >> 9));
    if (mixer.steps < kMaxSteps) ++mixer.steps;
    const int64_t target = bit ? int64_t{1} << 22 : 0;
    for (unsigned k = 0; k < kInputs; ++k) {
      const uint32_t count = slot[k] & kMaxCount;
      const int64_t v = slot[k] >> 10;
      at[k][n] = (static_cast<uint32_t>(v + ((target - v) * t_.slot_rate[count] >> 16)) << 10) + t_.next_count[count];
    }
    return bit;
  }

  void learn(Column& own, uint32_t smooth, const int* tap, int predicted, int actual, int32_t q, unsigned parity) {
    const int error = actual - predicted;
    for (unsigned k = 0; k < kTaps; ++k) tap_weights_[k] += (tap[k] * error + 512) >> 10;
    // In half levels, as the trellis reconstructs it.
    const int limited = clamp(q, kMaxMagnitude), odd = static_cast<int>(parity);
    const int64_t halves = 2 * limited - (q > 0 ? odd : q < 0 ? -odd : 0);
    const int64_t m = (halves < 0 ? -halves : halves) << 11;
    recent_ = static_cast<uint32_t>(recent_ + ((m - int64_t{recent_}) >> 4));
    row_level_ += (m - row_level_) * t_.average_rate[row_count_] >> 16;
    row_column_ += (int64_t{smooth} - row_column_) * t_.average_rate[row_count_] >> 16;
    if (row_count_ < kMaxRowCount) ++row_count_;
    ratio_ = static_cast<uint64_t>(std::min<int64_t>(1 << 24, ((row_level_ + 256) << 16) / (row_column_ + 256)));
    const int64_t rate = t_.average_rate[own.count + 2];
    own.magnitude = static_cast<uint32_t>(own.magnitude + ((m - int64_t{own.magnitude}) * rate >> 16));
    own.value = static_cast<int32_t>(own.value + ((halves * 2048 - own.value) * rate >> 16));
    if (own.count + 2 < kMaxColumnCount) ++own.count;
    ++x_;
    if (++slot_ == stride_) slot_ = 0;
  }

  Coder& coder_;
  const Tables& t_;
  uint32_t* slots_;
  Column* columns_;
  size_t width_, stride_;  // the distance to the row above, or more than there are levels
  size_t row_length_, x_, slot_ = 0;
  bool dependent_;
  int log_scale_;
  unsigned state_ = 0, near_shift_ = 0, row_count_ = kFirstRowCount;
  uint32_t recent_;
  int64_t row_level_, row_column_;
  uint64_t ratio_ = 1 << 16, slope_ = 0;
  int64_t tap_weights_[kTaps] = {};
  Mixer mixers_[kNodes];
};

}  // namespace limosa::adaptive
