// The portable kernels: what every other table must agree with.
#include <cstdint>
#include <cstring>

#include "limosa/format.hpp"
#include "limosa/kernels.hpp"
#include "kernels_tables.hpp"
#include "trellis.hpp"

namespace limosa {
namespace {

#include "kernels_loops.hpp"

size_t rans_decode32(const DecodeEntry* table, unsigned log2_total, const uint8_t* contexts, const uint8_t* words,
                     uint32_t* states, uint8_t* out, size_t n) {
  const uint32_t mask = (1u << log2_total) - 1;
  const uint8_t* at = words;
  for (size_t i = 0; i < n; ++i) {
    uint32_t& x = states[i % kLanes];
    const size_t context = contexts ? contexts[i] : 0;
    const uint32_t e = table[(context << log2_total) + (x & mask)];
    out[i] = static_cast<uint8_t>(e);
    x = (e >> 8 & 0xfff) * (x >> log2_total) + (e >> 20);
    if (x < kStateLow) {
      x = x << 16 | load<uint16_t>(at);
      at += 2;
    }
  }
  return static_cast<size_t>(at - words) / 2;
}

size_t rans_decode32_trellis(const DecodeEntry* table, unsigned log2_total, const uint8_t* classes, unsigned class_count,
                             const uint8_t* words, uint32_t* states, uint8_t* trellis, uint8_t* out,
                             uint8_t* quantizers, size_t n) {
  const uint32_t mask = (1u << log2_total) - 1;
  const uint8_t* at = words;
  for (size_t i = 0; i < n; ++i) {
    uint32_t& x = states[i % kLanes];
    uint8_t& state = trellis[i % kLanes];
    quantizers[i] = state & 1;
    const size_t context = (classes ? classes[i] : 0) + size_t{class_count} * quantizers[i];
    const uint32_t e = table[(context << log2_total) + (x & mask)];
    out[i] = static_cast<uint8_t>(e);
    state = kNextState[state + 8 * token_parity(e & 255)];
    x = (e >> 8 & 0xfff) * (x >> log2_total) + (e >> 20);
    if (x < kStateLow) {
      x = x << 16 | load<uint16_t>(at);
      at += 2;
    }
  }
  return static_cast<size_t>(at - words) / 2;
}

uint16_t* rans_encode32(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t n,
                        uint32_t* states, uint16_t* words_end) {
  for (size_t i = n; i-- > 0;) {
    uint32_t& x = states[i % kLanes];
    const EncodeSymbol& s = table[(contexts ? size_t{contexts[i]} << 8 : 0) + symbols[i]];
    if (x > s.limit) {
      *--words_end = static_cast<uint16_t>(x);
      x >>= 16;
    }
    const uint32_t q = static_cast<uint32_t>(uint64_t{x} * s.reciprocal >> 32) >> (s.packed >> 25);
    x += (s.packed & 0x1fff) + q * (s.packed >> 13 & 0xfff);
  }
  return words_end;
}

}  // namespace

extern const Kernels kKernelsScalar;
const Kernels kKernelsScalar = {"scalar", rans_decode32, rans_decode32_trellis, rans_encode32, LIMOSA_PLAIN_KERNELS(join)};

}  // namespace limosa
