#include "limosa/context_coder.hpp"

#include <algorithm>

#include "context_model.hpp"

namespace limosa {
namespace {

using namespace adaptive;

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
  scratch.bins.resize(std::max(scratch.bins.size(), memory_size(n, columns) / sizeof(uint32_t)));
  const uint8_t scale = scale_byte(levels, n);
  Bytes code;
  BitEncoder coder(code);
  Model<BitEncoder> model(coder, scratch.bins.data(), n, columns, first_column, dependent, scale_of(scale));
  for (size_t i = 0; i < n; ++i) model.level(levels, i);
  coder.finish();
  append_varint(out, 1 + code.size());
  out.push_back(scale);
  append_bytes(out, code.data(), code.size());
}

void decode_adaptive(Reader& reader, int32_t* levels, size_t n, size_t columns, size_t first_column, bool dependent,
                     DecodeScratch& scratch) {
  const size_t offset = reader.offset();
  const uint64_t size = reader.varint();
  if (size < 2) reader.corrupt("adaptive levels of less than two bytes");
  const uint8_t* data = reader.take(static_cast<size_t>(size));
  if (*data > kMaxScale) throw DecodeError{DecodeError::corrupt, offset, "scale of adaptive levels above 215"};
  BitDecoder coder(data + 1, static_cast<size_t>(size) - 1, offset);
  scratch.extra.resize(std::max(scratch.extra.size(), memory_size(n, columns)));
  Model<BitDecoder> model(coder, scratch.extra.data(), n, columns, first_column, dependent, scale_of(*data));
  for (size_t i = 0; i < n; ++i) levels[i] = model.level(levels, i);
  coder.finish();
}

}  // namespace limosa
