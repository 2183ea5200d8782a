#include <algorithm>
#include <cstring>

#include "limosa/integers.hpp"

namespace limosa {
namespace {

constexpr size_t kPiece = 32;                  // values between two checks of what is left
constexpr size_t kSlack = kPiece * 8 + 16;  // readable bytes behind the extra bits: a piece may run over before its check

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
  const unsigned direct = 1u << shape_.split;
  invalid_ = 256;
  for (unsigned t = 0; t < invalid_; ++t) {
    const unsigned bits = token_extra_bits(t, shape_);
    if (t >= direct && bits + shape_.joined > 63) {
      invalid_ = t;
      return;
    }
    const uint64_t q = t < direct ? 0 : (1u << shape_.joined) + ((t - direct) & ((1u << shape_.joined) - 1));
    bases_[t] = t < direct ? t : q << bits;
    entries_[t] = bases_[t] << 8 | bits;
    if (width < 64 && bases_[t] >> width) {
      invalid_ = t;
      return;
    }
  }
}

void IntegerDecoder::next_wide(uint64_t* values, const uint8_t* tokens, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const uint8_t t = tokens[i];
    if (t >= invalid_) throw DecodeError{DecodeError::corrupt, offset_, "token beyond the width of its integers"};
    const unsigned bits = static_cast<unsigned>(entries_[t] & 255);
    if (extra_at_ + bits > uint64_t{extra_bytes_} * 8)
      throw DecodeError{DecodeError::corrupt, offset_, "extra bits of an integer stream run out"};
    values[i] = bases_[t] + peek(extra_, extra_at_, bits);
    extra_at_ += bits;
  }
}

void IntegerDecoder::next(uint8_t* values, const uint8_t* contexts, size_t count) {
  scratch_->symbols.resize(std::max(scratch_->symbols.size(), count));
  uint8_t* tokens = scratch_->symbols.data();
  tokens_.next(tokens, contexts, count);
  expand(values, tokens, count);
}

void IntegerDecoder::next_trellis(uint8_t* values, const uint8_t* classes, TrellisWalk& walk, uint8_t* quantizers,
                                  size_t count) {
  scratch_->symbols.resize(std::max(scratch_->symbols.size(), count));
  tokens_.next_trellis(scratch_->symbols.data(), classes, walk, quantizers, count);
  expand(values, scratch_->symbols.data(), count);
}

void IntegerDecoder::expand(uint8_t* values, const uint8_t* tokens, size_t count) {
  if (width_ == 64) return next_wide(reinterpret_cast<uint64_t*>(values), tokens, count);
  const uint64_t end = uint64_t{extra_bytes_} * 8;
  const size_t done = kernels().expand_tokens(tokens, count, entries_, 1u << shape_.split, invalid_, extra_, &extra_at_,
                                              end, width_, values);
  if (extra_at_ > end) throw DecodeError{DecodeError::corrupt, offset_, "extra bits of an integer stream run out"};
  if (done < count) throw DecodeError{DecodeError::corrupt, offset_, "token beyond the width of its integers"};
}

void IntegerDecoder::finish() const {
  tokens_.finish();
  if ((extra_at_ + 7) / 8 != extra_bytes_)
    throw DecodeError{DecodeError::corrupt, offset_, "extra bits of an integer stream left over"};
}

}  // namespace limosa
