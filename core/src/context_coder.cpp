#include "limosa/context_coder.hpp"

#include <algorithm>

namespace limosa {
namespace {

constexpr uint8_t kTrellis[8][2] = {{0, 2}, {7, 5}, {1, 3}, {6, 4}, {2, 0}, {5, 7}, {3, 1}, {4, 6}};

// Probabilities have 16 bits; logits have 8 fractional bits and stay within +-kMaxLogit.
constexpr int kMaxLogit = 2047;
constexpr unsigned kMaxCount = 1023;     // of a slot
constexpr unsigned kMaxColumnCount = 100;
constexpr unsigned kFirstRowCount = 8, kMaxRowCount = 256;
constexpr unsigned kMaxSteps = 120;      // after which the mixer learns at its slowest
constexpr uint32_t kMaxMagnitude = 1u << 18;  // in the averages

// One node for each question that a level is asked.
constexpr unsigned kNodeZero = 0, kNodeSign = 2, kNodeClass = 3, kNodeBits = 32, kNodes = 128;
constexpr unsigned kMaxClass = kMaxLevelBits - 1, kMaxBitsClass = 12, kModelledBits = 3;

// First context of each input; the last input is the Laplace distribution and has none.
constexpr unsigned kSmooth = 0, kOwn = 64, kColumn = 128, kPredicted = 192, kRecent = 448, kNear = 704,
                   kContexts = 1216;
constexpr unsigned kInputs = 6, kTaps = 8;

struct Tables {
  uint16_t probability[2 * kMaxLogit + 1];  // of a logit + kMaxLogit
  int16_t logit[4096];                      // of a probability / 16
  int16_t survival[kMaxLogit + 1];          // logit of exp(-u / 256)
  uint32_t slot_rate[kMaxCount + 1], average_rate[kMaxRowCount + 1];
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
    for (unsigned k = 0; k <= kMaxCount; ++k) slot_rate[k] = 131072 / (2 * k + 3);
    for (unsigned k = 1; k <= kMaxRowCount; ++k) average_rate[k] = 65536 / k;
    average_rate[0] = 0;
    for (unsigned k = 0; k <= kMaxSteps; ++k) mixer_rate[k] = static_cast<int32_t>(std::max(24u, 3200 / (k + 16)));
  }
};

const Tables& tables() {
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

// Range coders of 32 bits. `code` takes the probability of a 1 and, to encode, the bit.
class BitEncoder {
 public:
  static constexpr bool kEncodes = true;
  explicit BitEncoder(Bytes& out) : out_(out) {}

  unsigned code(uint32_t probability, unsigned bit) {
    const auto bound = static_cast<uint32_t>(uint64_t{range_} * probability >> 16);
    if (bit) {
      range_ = bound;
    } else {
      low_ += bound;
      range_ -= bound;
    }
    while (range_ < 1u << 24) {
      range_ <<= 8;
      shift();
    }
    return bit;
  }

  // The multiple of 2^24 in the range, of which one byte is enough.
  void finish() {
    low_ = (low_ + 0xffffff) & ~uint64_t{0xffffff};
    shift();
    shift();
  }

 private:
  // Moves the top byte of low_ out; it waits, with the 255s behind it, until no carry can reach it.
  void shift() {
    if (low_ >> 32 || static_cast<uint32_t>(low_) < 0xff000000u) {
      const auto carry = static_cast<uint8_t>(low_ >> 32);
      if (started_) out_.push_back(static_cast<uint8_t>(cache_ + carry));
      for (; waiting_; --waiting_) out_.push_back(static_cast<uint8_t>(255 + carry));
      started_ = true;
      cache_ = static_cast<uint8_t>(low_ >> 24);
    } else {
      ++waiting_;
    }
    low_ = (low_ & 0xffffff) << 8;
  }

  Bytes& out_;
  uint64_t low_ = 0;
  uint32_t range_ = 0xffffffff;
  uint8_t cache_ = 0;
  bool started_ = false;
  size_t waiting_ = 0;
};

class BitDecoder {
 public:
  static constexpr bool kEncodes = false;
  BitDecoder(const uint8_t* data, size_t size, size_t offset) : at_(data), end_(data + size), offset_(offset) {
    for (int k = 0; k < 4; ++k) code_ = code_ << 8 | next();
    if (code_ == range_) throw DecodeError{DecodeError::corrupt, offset_, "adaptive levels start beyond the range"};
  }

  unsigned code(uint32_t probability, unsigned) {
    const auto bound = static_cast<uint32_t>(uint64_t{range_} * probability >> 16);
    const unsigned bit = code_ < bound;
    if (bit) {
      range_ = bound;
    } else {
      code_ -= bound;
      range_ -= bound;
    }
    while (range_ < 1u << 24) {
      range_ <<= 8;
      code_ = code_ << 8 | next();
    }
    return bit;
  }

  void finish() const {
    if (at_ != end_ || behind_ != 3)
      throw DecodeError{DecodeError::corrupt, offset_, "adaptive levels do not end with their bytes"};
  }

 private:
  // The encoder leaves out the last three bytes, which are 0.
  uint8_t next() {
    if (at_ != end_) return *at_++;
    if (++behind_ > 3) throw DecodeError{DecodeError::corrupt, offset_, "adaptive levels run out of bytes"};
    return 0;
  }

  const uint8_t *at_, *end_;
  size_t offset_;
  unsigned behind_ = 0;
  uint32_t code_ = 0, range_ = 0xffffffff;
};

struct Column {
  uint32_t magnitude;  // averages, 12 fractional bits
  int32_t value;
  uint32_t count;
};

// Bytes of what a Model keeps outside itself.
size_t memory_size(size_t width) { return kContexts * kNodes * sizeof(uint32_t) + width * sizeof(Column); }

// What is known before each level and how its bits are predicted; the same code in both directions.
template <class Coder>
class Model {
 public:
  Model(Coder& coder, uint8_t* memory, size_t width, size_t columns, size_t first_column, bool dependent,
        uint32_t scale)
      : coder_(coder), t_(tables()), slots_(reinterpret_cast<uint32_t*>(memory)),
        columns_(reinterpret_cast<Column*>(slots_ + kContexts * kNodes)), width_(width), row_length_(columns),
        x_(first_column), dependent_(dependent), log_scale_(log16(scale)), recent_(scale), row_level_(scale),
        row_column_(scale) {
    std::fill(slots_, slots_ + kContexts * kNodes, 0);
    std::fill(columns_, columns_ + width, Column{scale, 0, 0});
    for (auto& w : weights_)
      for (int64_t& v : w) v = 9362;  // 1/7
    const int coarse = log_scale_ / 16 - 13;  // so that magnitudes about the mean are 2 and 3
    near_shift_ = static_cast<unsigned>(std::max(0, coarse));
  }

  // Codes levels[i], after all before it; returns it.
  int32_t level(const int32_t* levels, size_t i) {
    const size_t c = row_length_;
    if (x_ == c) {
      x_ = 0;
      row_count_ = std::min(row_count_, kFirstRowCount);
    }
    const auto before = [&](size_t distance) { return i >= distance ? levels[i - distance] : 0; };
    Column& own = columns_[slot_];
    const uint32_t left = slot_ ? columns_[slot_ - 1].magnitude : own.magnitude;
    const uint32_t right = slot_ + 1 < width_ ? columns_[slot_ + 1].magnitude : own.magnitude;
    const uint32_t smooth = (2 * own.magnitude + left + right) >> 2;
    const uint64_t scale = std::max<uint64_t>(1, uint64_t{smooth} * ratio_ >> 16);
    const uint64_t own_scale = uint64_t{own.magnitude} * ratio_ >> 16;
    slope_ = (uint64_t{1} << 32) / scale;

    // A linear prediction of the level over its scale, 8 fractional bits.
    const uint64_t inverse = (uint64_t{1} << 32) / (scale + 1229);
    const auto normal = [&](int64_t q) { return clamp(q * static_cast<int64_t>(inverse) >> 12, 768); };
    const int32_t previous = before(1), second = before(2), above = before(c);
    const int tap[kTaps] = {normal(previous), normal(second), normal(before(3)), normal(above),
                            normal(c > 1 ? before(c - 1) : 0), normal(before(c + 1)), normal(before(2 * c)),
                            normal(own.value >> 12)};
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
    use(1, kOwn + relative(log_own, 2, 63));
    use(2, kColumn + relative(log16(std::max(1u, own.magnitude)), 2, 63));
    use(3, kPredicted + step_of(predicted) * 16 + relative(log, 8, 15));
    use(4, kRecent + relative(log_own, 8, 15) * 16 + relative(log16(std::max(1u, recent_)), 8, 15));
    use(5, kNear + (near(previous) * 8 + near(second)) * 8 + near(above));

    const unsigned parity = state_ & 1;
    int32_t q = Coder::kEncodes ? levels[i] : 0;
    uint32_t m = magnitude(q);
    if (node(at, kNodeZero + parity, t_.survival[steepness(0)], m != 0)) {
      const unsigned negative = node(at, kNodeSign, 0, q < 0);
      const unsigned top = m ? bit_length(m) - 1 : 0;  // of the level, when encoding
      unsigned e = 0;
      while (e < kMaxClass && node(at, e ? kNodeClass + 1 + e : kNodeClass + parity, t_.survival[steepness(e + 1)], e < top)) ++e;
      const unsigned base = kNodeBits + (std::min(e, kMaxBitsClass) - 1) * 8;
      uint32_t value = 1;
      for (unsigned k = 0; k < e; ++k) {
        const unsigned bit = m >> (e - 1 - k) & 1;
        value = value << 1 |
                (k < kModelledBits ? node(at, base + value, -steepness(e - k), bit) : coder_.code(32768, bit));
      }
      m = value;
      q = negative ? -static_cast<int32_t>(value) : static_cast<int32_t>(value);
    } else {
      m = 0;
      q = 0;
    }
    if (dependent_) state_ = kTrellis[state_][m & 1];
    learn(own, smooth, tap, predicted, normal(q), q);
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

  unsigned near(int32_t q) const {
    const uint32_t m = magnitude(q) >> near_shift_;
    if (m < 3) return m;
    return m < 4 ? 3 : m < 6 ? 4 : m < 9 ? 5 : m < 14 ? 6 : 7;
  }

  // One bit of a level: mixes the predictions, codes, and corrects weights and slots.
  unsigned node(uint32_t* const* at, unsigned n, int laplace, unsigned bit) {
    int logit[kInputs + 1];
    int64_t* weight = weights_[n];
    int64_t sum = int64_t{laplace} * weight[kInputs];
    logit[kInputs] = laplace;
    for (unsigned k = 0; k < kInputs; ++k) {
      uint32_t& slot = at[k][n];
      if (slot == 0) slot = uint32_t{t_.probability[laplace + kMaxLogit]} << 16 | 1;
      logit[k] = t_.logit[slot >> 20];
      sum += logit[k] * weight[k];
    }
    const uint32_t p = t_.probability[clamp(sum >> 16, kMaxLogit) + kMaxLogit];
    bit = coder_.code(p, bit);
    const int32_t error = (static_cast<int32_t>(bit << 16) - static_cast<int32_t>(p)) * t_.mixer_rate[steps_[n]] >> 9;
    if (steps_[n] < kMaxSteps) ++steps_[n];
    const int64_t target = bit ? int64_t{1} << 22 : 0;
    for (unsigned k = 0; k <= kInputs; ++k) weight[k] += (logit[k] * error + 4096) >> 13;
    for (unsigned k = 0; k < kInputs; ++k) {
      uint32_t& slot = at[k][n];
      const uint32_t count = slot & kMaxCount;
      const int64_t v = slot >> 10;
      slot = static_cast<uint32_t>(v + ((target - v) * t_.slot_rate[count] >> 16)) << 10 | std::min(count + 1, kMaxCount);
    }
    return bit;
  }

  void learn(Column& own, uint32_t smooth, const int* tap, int predicted, int actual, int32_t q) {
    const int error = actual - predicted;
    for (unsigned k = 0; k < kTaps; ++k) tap_weights_[k] += (tap[k] * error + 512) >> 10;
    const int64_t limited = clamp(q, kMaxMagnitude);
    const int64_t m = (limited < 0 ? -limited : limited) << 12;
    recent_ = static_cast<uint32_t>(recent_ + ((m - int64_t{recent_}) >> 4));
    row_level_ += (m - row_level_) * t_.average_rate[row_count_] >> 16;
    row_column_ += (int64_t{smooth} - row_column_) * t_.average_rate[row_count_] >> 16;
    if (row_count_ < kMaxRowCount) ++row_count_;
    ratio_ = static_cast<uint64_t>(std::min<int64_t>(1 << 24, ((row_level_ + 256) << 16) / (row_column_ + 256)));
    const int64_t rate = t_.average_rate[own.count + 2];
    own.magnitude = static_cast<uint32_t>(own.magnitude + ((m - int64_t{own.magnitude}) * rate >> 16));
    own.value = static_cast<int32_t>(own.value + ((limited * 4096 - own.value) * rate >> 16));
    if (own.count + 2 < kMaxColumnCount) ++own.count;
    ++x_;
    if (++slot_ == row_length_) slot_ = 0;
  }

  Coder& coder_;
  const Tables& t_;
  uint32_t* slots_;
  Column* columns_;
  size_t width_, row_length_, x_, slot_ = 0;
  bool dependent_;
  int log_scale_;
  unsigned state_ = 0, near_shift_ = 0, row_count_ = kFirstRowCount;
  uint32_t recent_;
  int64_t row_level_, row_column_;
  uint64_t ratio_ = 1 << 16, slope_ = 0;
  int64_t tap_weights_[kTaps] = {};
  int64_t weights_[kNodes][kInputs + 1];
  uint8_t steps_[kNodes] = {};
};

// The mean magnitude with 12 fractional bits that a byte stands for: eighths of an octave from 2^-8 up.
uint32_t scale_of(unsigned byte) { return ((8 + (byte & 7)) << (byte >> 3)) << 1; }
constexpr unsigned kMaxScale = 215;

uint8_t scale_byte(const int32_t* levels, size_t n) {
  uint64_t sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::min(magnitude(levels[i]), kMaxMagnitude);
  const uint64_t mean = std::max<uint64_t>(1, (sum * 256 + n / 2) / n);
  return static_cast<uint8_t>(std::min<int>(log16(mean) / 2, kMaxScale));
}

}  // namespace

void encode_adaptive(Bytes& out, const int32_t* levels, size_t n, size_t columns, size_t first_column, bool dependent,
                     EncodeScratch& scratch) {
  const size_t width = std::min(columns, n);
  scratch.values.resize(std::max(scratch.values.size(), memory_size(width)));
  const uint8_t scale = scale_byte(levels, n);
  Bytes code;
  BitEncoder coder(code);
  Model<BitEncoder> model(coder, scratch.values.data(), width, columns, first_column, dependent, scale_of(scale));
  for (size_t i = 0; i < n; ++i) model.level(levels, i);
  coder.finish();
  append_varint(out, code.size());
  out.push_back(scale);
  append_bytes(out, code.data(), code.size());
}

void decode_adaptive(Reader& reader, int32_t* levels, size_t n, size_t columns, size_t first_column, bool dependent,
                     DecodeScratch& scratch) {
  const size_t offset = reader.offset();
  const uint64_t size = reader.varint();
  const unsigned scale = reader.number<uint8_t>();
  if (scale > kMaxScale) reader.corrupt("scale of adaptive levels");
  if (size > reader.left()) reader.take(reader.left() + 1);
  BitDecoder coder(reader.take(static_cast<size_t>(size)), static_cast<size_t>(size), offset);
  const size_t width = std::min(columns, n);
  scratch.extra.resize(std::max(scratch.extra.size(), memory_size(width)));
  Model<BitDecoder> model(coder, scratch.extra.data(), width, columns, first_column, dependent, scale_of(scale));
  for (size_t i = 0; i < n; ++i) levels[i] = model.level(levels, i);
  coder.finish();
}

}  // namespace limosa
