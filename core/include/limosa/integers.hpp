// Integer streams (docs/format.md 3.3): a token for the magnitude, raw bits for the rest.
#pragma once
#include "limosa/rans.hpp"

namespace limosa {

// `split`: values below 2^split are tokens of their own; `joined`: top bits below the leading one kept in the token.
struct TokenShape {
  unsigned split, joined;
};

inline unsigned token_extra_bits(unsigned token, TokenShape shape) {
  return token < (1u << shape.split) ? 0 : shape.split + ((token - (1u << shape.split)) >> shape.joined) - shape.joined;
}

// The token of v; `extra` gets how many low bits of v it leaves out.
inline unsigned token_of(uint64_t v, TokenShape shape, unsigned* extra) {
  if (v < (uint64_t{1} << shape.split)) {
    *extra = 0;
    return static_cast<unsigned>(v);
  }
  const unsigned top = bit_length(v) - 1;
  *extra = top - shape.joined;
  const unsigned low = static_cast<unsigned>(v >> *extra) & ((1u << shape.joined) - 1);
  return (1u << shape.split) + ((top - shape.split) << shape.joined) + low;
}

// The finest shape for values of up to 32 bits: 128 values of their own, then four tokens an octave.
constexpr TokenShape kFinest32{7, 2};

// Values are uint8_t, uint16_t, uint32_t or uint64_t by `width`. `fixed`: that shape instead of the cheapest.
void encode_integers(Bytes& out, const uint8_t* values, unsigned width, size_t n, const uint8_t* contexts,
                     unsigned context_count, EncodeScratch& scratch, const TokenShape* fixed = nullptr);
// Bits that encode_integers would take, from histograms; at least 1.
uint64_t integers_cost(const uint8_t* values, unsigned width, size_t n, const uint8_t* contexts, unsigned context_count,
                       EncodeScratch& scratch);

// Reads a stream piece by piece, like SymbolDecoder.
class IntegerDecoder {
 public:
  void begin(Reader& reader, size_t n, unsigned width, unsigned context_count, DecodeScratch& scratch,
             std::vector<DecodeEntry>& table);
  void next(uint8_t* values, const uint8_t* contexts, size_t count);
  // As SymbolDecoder::next_trellis.
  void next_trellis(uint8_t* values, const uint8_t* classes, TrellisWalk& walk, uint8_t* quantizers, size_t count);
  void finish() const;

 private:
  void expand(uint8_t* values, const uint8_t* tokens, size_t count);
  void next_wide(uint64_t* values, const uint8_t* tokens, size_t count);

  SymbolDecoder tokens_;
  unsigned width_ = 0;
  TokenShape shape_{0, 0};
  size_t offset_ = 0;
  const uint8_t* extra_ = nullptr;
  size_t extra_bytes_ = 0;
  uint64_t extra_at_ = 0;  // in bits
  unsigned invalid_ = 256;      // the first token that no value of this width has
  uint64_t entries_[256] = {};  // base << 8 | extra bits; for 64 bits the base is kept apart
  uint64_t bases_[256] = {};
  DecodeScratch* scratch_ = nullptr;
};

}  // namespace limosa
