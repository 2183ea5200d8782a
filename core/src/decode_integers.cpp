#include <algorithm>
#include <cstring>

#include "limosa/integers.hpp"

namespace limosa {
namespace {

constexpr size_t kPiece = 32;    // tokens looked at together
constexpr size_t kSlack = 16;    // readable bytes behind the extra bits

// `bits` (at most 63) bits at bit `at`; kSlack bytes behind the data are readable.
inline uint64_t peek(const uint8_t* p, uint64_t at, unsigned bits) {
  uint64_t lo;
  std::memcpy(&lo, p + (at >> 3), 8);
  const unsigned shift = at & 7;
  lo >>= shift;
  if (shift + bits > 64) lo |= static_cast<uint64_t>(p[(at >> 3) + 8]) << (64 - shift);
  return lo & ((uint64_t{1} << bits) - 1);
}

}  // namespace

void IntegerDecoder::begin(Reader& r, size_t n, unsigned width, unsigned context_count, DecodeScratch& scratch,
                           std::vector<DecodeEntry>& table) {
  offset_ = r.offset();
  width_ = width;
  scratch_ = &scratch;
  shape_.split = r.number<uint8_t>();
  shape_.joined = r.number<uint8_t>();
  if (shape_.split > 7 || shape_.joined > shape_.split) r.corrupt("token shape of an integer stream");
  tokens_.begin(r, n, context_count, table);
  const uint64_t bytes = r.varint();
  if (bytes > uint64_t{n} * 8) r.corrupt("more extra bits than values can have");
  extra_bytes_ = static_cast<size_t>(bytes);
  const uint8_t* data = r.take(extra_bytes_);
  scratch.extra.resize(extra_bytes_ + kSlack);  // a copy, so that whole words can be read at the end
  if (extra_bytes_) std::memcpy(scratch.extra.data(), data, extra_bytes_);
  std::memset(scratch.extra.data() + extra_bytes_, 0, kSlack);
  extra_ = scratch.extra.data();
  extra_at_ = 0;
  for (unsigned t = 0; t < 256; ++t) {
    const unsigned bits = token_extra_bits(t, shape_);
    if (t < (1u << shape_.split)) {
      base_[t] = t;
      bits_[t] = 0;
    } else if (bits + shape_.joined > 63) {
      bits_[t] = 255;  // no such token for 64 bits
    } else {
      const unsigned q = t - (1u << shape_.split);
      base_[t] = uint64_t{(1u << shape_.joined) + (q & ((1u << shape_.joined) - 1))} << bits;
      bits_[t] = static_cast<uint8_t>(bits);
      if (width < 64 && base_[t] >> width) bits_[t] = 255;
    }
  }
}

template <class T>
void IntegerDecoder::next_of(T* values, const uint8_t* tokens, size_t count) {
  const uint8_t direct = static_cast<uint8_t>(1u << shape_.split);
  for (size_t at = 0; at < count; at += kPiece) {
    const size_t piece = std::min(kPiece, count - at);
    uint8_t most = 0;
    for (size_t i = 0; i < piece; ++i) most = std::max(most, tokens[at + i]);
    if (most < direct) {
      for (size_t i = 0; i < piece; ++i) values[at + i] = tokens[at + i];
      continue;
    }
    uint64_t wanted = 0;
    unsigned widest = 0;
    for (size_t i = 0; i < piece; ++i) {
      const unsigned bits = bits_[tokens[at + i]];
      wanted += bits;
      widest = std::max(widest, bits);
    }
    if (widest == 255) throw DecodeError{DecodeError::corrupt, offset_, "token beyond the width of its integers"};
    if (extra_at_ + wanted > uint64_t{extra_bytes_} * 8)
      throw DecodeError{DecodeError::corrupt, offset_, "extra bits of an integer stream run out"};
    uint64_t bit = extra_at_;
    if (widest <= 56) {
      for (size_t i = 0; i < piece; ++i) {
        const uint8_t t = tokens[at + i];
        uint64_t word;
        std::memcpy(&word, extra_ + (bit >> 3), 8);
        values[at + i] = static_cast<T>(base_[t] + (word >> (bit & 7) & ((uint64_t{1} << bits_[t]) - 1)));
        bit += bits_[t];
      }
    } else {
      for (size_t i = 0; i < piece; ++i) {
        const uint8_t t = tokens[at + i];
        values[at + i] = static_cast<T>(base_[t] + peek(extra_, bit, bits_[t]));
        bit += bits_[t];
      }
    }
    extra_at_ = bit;
  }
}

void IntegerDecoder::next(uint8_t* values, const uint8_t* contexts, size_t count) {
  scratch_->symbols.resize(std::max(scratch_->symbols.size(), count));
  uint8_t* tokens = scratch_->symbols.data();
  tokens_.next(tokens, contexts, count);
  if (width_ == 8) next_of(values, tokens, count);
  else if (width_ == 16) next_of(reinterpret_cast<uint16_t*>(values), tokens, count);
  else if (width_ == 32) next_of(reinterpret_cast<uint32_t*>(values), tokens, count);
  else next_of(reinterpret_cast<uint64_t*>(values), tokens, count);
}

void IntegerDecoder::finish() const {
  tokens_.finish();
  if ((extra_at_ + 7) / 8 != extra_bytes_)
    throw DecodeError{DecodeError::corrupt, offset_, "extra bits of an integer stream left over"};
}

}  // namespace limosa
