// NEON: 4 lanes a vector. It has neither gathers nor masks of bits, so the table of frequencies is read with scalar
// loads, and small shuffles by lane mask move the words of a renormalisation.
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "limosa/format.hpp"
#include "limosa/kernels.hpp"
#include "trellis.hpp"

namespace limosa {
namespace {

#include "kernels_loops.hpp"

// By mask of 4 lanes; 255 gives a zero byte.
struct LaneTables {
  uint8_t spread[16][16];   // decode: the next words to the low halves of the set lanes
  uint8_t compact[16][8];   // encode: the low halves of the set lanes to the upper end of 4 words
  uint8_t count[16];

  constexpr LaneTables() : spread(), compact(), count() {
    for (int mask = 0; mask < 16; ++mask) {
      int used = 0;
      for (int lane = 0; lane < 4; ++lane) {
        const bool set = mask >> lane & 1;
        for (int b = 0; b < 4; ++b) spread[mask][4 * lane + b] = static_cast<uint8_t>(set && b < 2 ? 2 * used + b : 255);
        used += set;
      }
      count[mask] = static_cast<uint8_t>(used);
      for (int b = 0; b < 8; ++b) compact[mask][b] = 255;
      int to = 2 * (4 - used);
      for (int lane = 0; lane < 4; ++lane) {
        if (!(mask >> lane & 1)) continue;
        compact[mask][to++] = static_cast<uint8_t>(4 * lane);
        compact[mask][to++] = static_cast<uint8_t>(4 * lane + 1);
      }
    }
  }
};

constexpr LaneTables kLaneTables;

inline unsigned lane_mask(uint32x4_t set) {
  const uint32x4_t bits = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(set, bits));
}

inline uint32x4_t look_up(const DecodeEntry* t, uint32x4_t index) {
  const uint64_t a = vgetq_lane_u64(vreinterpretq_u64_u32(index), 0);
  const uint64_t b = vgetq_lane_u64(vreinterpretq_u64_u32(index), 1);
  uint32x4_t e = vdupq_n_u32(t[static_cast<uint32_t>(a)]);
  e = vsetq_lane_u32(t[a >> 32], e, 1);
  e = vsetq_lane_u32(t[static_cast<uint32_t>(b)], e, 2);
  return vsetq_lane_u32(t[b >> 32], e, 3);
}

// The contexts of 32 symbols, the first being symbol i, from the lanes' trellises, whose states are bytes.
struct Trellis {
  unsigned class_count;
  uint8_t* quantizers;
  uint8x16_t states[2];

  void before(size_t i, const uint8_t* classes, uint8_t* contexts) {
    for (int h = 0; h < 2; ++h) {
      const uint8x16_t quantizer = vandq_u8(states[h], vdupq_n_u8(1));
      vst1q_u8(quantizers + i + 16 * h, quantizer);
      const uint8x16_t c = classes ? vld1q_u8(classes + 16 * h) : vdupq_n_u8(0);
      vst1q_u8(contexts + 16 * h, vmlaq_u8(c, quantizer, vdupq_n_u8(static_cast<uint8_t>(class_count))));
    }
  }
  void after(const uint8_t* tokens) {
    for (int h = 0; h < 2; ++h) {
      // Bit 1 of token + 1 is its parity.
      const uint8x16_t parity = vandq_u8(vshlq_n_u8(vaddq_u8(vld1q_u8(tokens + 16 * h), vdupq_n_u8(1)), 2), vdupq_n_u8(8));
      states[h] = vqtbl1q_u8(vld1q_u8(kNextState), vorrq_u8(states[h], parity));
    }
  }
};

// `trellis` null: `contexts` are what they say; otherwise classes, or null.
template <bool WithContexts>
size_t decode32(const DecodeEntry* table, unsigned log2_total, const uint8_t* contexts, const uint8_t* words,
                uint32_t* states, uint8_t* out, size_t n, Trellis* trellis) {
  uint8_t own[32];
  const uint32x4_t slot_mask = vdupq_n_u32((1u << log2_total) - 1), frequency_mask = vdupq_n_u32(0xfff);
  const uint32x4_t low = vdupq_n_u32(kStateLow);
  const int32x4_t left = vdupq_n_s32(static_cast<int>(log2_total)), right = vnegq_s32(left);
  const uint8_t* at = words;
  uint32x4_t x[8];
  for (int j = 0; j < 8; ++j) x[j] = vld1q_u32(states + 4 * j);
  for (size_t i = 0; i < n; i += 32) {
    uint16x4_t symbol[8];
    const uint8_t* group = contexts ? contexts + i : nullptr;
    if (WithContexts && trellis) {
      trellis->before(i, group, own);
      group = own;
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      uint32x4_t index = vandq_u32(x[j], slot_mask);
      if (WithContexts) {
        uint32_t four;
        std::memcpy(&four, group + 4 * static_cast<size_t>(j), 4);
        const uint32x4_t c = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
        index = vorrq_u32(index, vshlq_u32(c, left));
      }
      const uint32x4_t e = look_up(table, index);
      symbol[j] = vmovn_u32(e);
      const uint32x4_t f = vandq_u32(vshrq_n_u32(e, 8), frequency_mask);
      x[j] = vmlaq_u32(vshrq_n_u32(e, 20), vshlq_u32(x[j], right), f);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const uint32x4_t short_of = vcltq_u32(x[j], low);
      const unsigned mask = lane_mask(short_of);
      const uint8x16_t next = vcombine_u8(vld1_u8(at), vdup_n_u8(0));
      const uint32x4_t w = vreinterpretq_u32_u8(vqtbl1q_u8(next, vld1q_u8(kLaneTables.spread[mask])));
      x[j] = vbslq_u32(short_of, vorrq_u32(vshlq_n_u32(x[j], 16), w), x[j]);
      at += 2 * size_t{kLaneTables.count[mask]};
    }
    for (int j = 0; j < 8; j += 4) {
      const uint8x8_t a = vmovn_u16(vcombine_u16(symbol[j], symbol[j + 1]));
      const uint8x8_t b = vmovn_u16(vcombine_u16(symbol[j + 2], symbol[j + 3]));
      vst1q_u8(out + i + 4 * static_cast<size_t>(j), vcombine_u8(a, b));
    }
    if (WithContexts && trellis) trellis->after(out + i);
  }
  for (int j = 0; j < 8; ++j) vst1q_u32(states + 4 * j, x[j]);
  return static_cast<size_t>(at - words) / 2;
}

size_t rans_decode32(const DecodeEntry* table, unsigned log2_total, const uint8_t* contexts, const uint8_t* words,
                     uint32_t* states, uint8_t* out, size_t n) {
  return contexts ? decode32<true>(table, log2_total, contexts, words, states, out, n, nullptr)
                  : decode32<false>(table, log2_total, nullptr, words, states, out, n, nullptr);
}

size_t rans_decode32_trellis(const DecodeEntry* table, unsigned log2_total, const uint8_t* classes, unsigned class_count,
                             const uint8_t* words, uint32_t* states, uint8_t* trellis, uint8_t* out,
                             uint8_t* quantizers, size_t n) {
  Trellis t{class_count, quantizers, {vld1q_u8(trellis), vld1q_u8(trellis + 16)}};
  const size_t used = decode32<true>(table, log2_total, classes, words, states, out, n, &t);
  vst1q_u8(trellis, t.states[0]);
  vst1q_u8(trellis + 16, t.states[1]);
  return used;
}

template <bool WithContexts>
inline uint32x4_t entry(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t i) {
  const size_t context = WithContexts ? size_t{contexts[i]} << 8 : 0;
  return vld1q_u32(&table[context + symbols[i]].limit);
}

template <bool WithContexts>
uint16_t* encode32(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t n,
                   uint32_t* states, uint16_t* words_end) {
  const uint32x4_t bias_mask = vdupq_n_u32(0x1fff), field = vdupq_n_u32(0xfff);
  uint32x4_t x[8];
  for (int j = 0; j < 8; ++j) x[j] = vld1q_u32(states + 4 * j);
  for (size_t i = n; i != 0; i -= 32) {
#pragma GCC unroll 8
    for (int j = 7; j >= 0; --j) {
      const size_t at = i - 32 + 4 * static_cast<size_t>(j);
      const uint32x4_t a = entry<WithContexts>(table, contexts, symbols, at);
      const uint32x4_t b = entry<WithContexts>(table, contexts, symbols, at + 1);
      const uint32x4_t c = entry<WithContexts>(table, contexts, symbols, at + 2);
      const uint32x4_t d = entry<WithContexts>(table, contexts, symbols, at + 3);
      const uint64x2_t ab = vreinterpretq_u64_u32(vzip1q_u32(a, b)), cd = vreinterpretq_u64_u32(vzip1q_u32(c, d));
      const uint32x4_t limit = vreinterpretq_u32_u64(vzip1q_u64(ab, cd));
      const uint32x4_t reciprocal = vreinterpretq_u32_u64(vzip2q_u64(ab, cd));
      const uint32x4_t packed = vreinterpretq_u32_u64(
          vzip1q_u64(vreinterpretq_u64_u32(vzip2q_u32(a, b)), vreinterpretq_u64_u32(vzip2q_u32(c, d))));

      uint32x4_t y = x[j];
      const uint32x4_t over = vcgtq_u32(y, limit);
      const unsigned mask = lane_mask(over);
      const uint8x8_t words = vqtbl1_u8(vreinterpretq_u8_u32(y), vld1_u8(kLaneTables.compact[mask]));
      vst1_u8(reinterpret_cast<uint8_t*>(words_end - 4), words);  // what is too much lies below
      words_end -= kLaneTables.count[mask];
      y = vbslq_u32(over, vshrq_n_u32(y, 16), y);

      const uint64x2_t first = vmull_u32(vget_low_u32(y), vget_low_u32(reciprocal)), second = vmull_high_u32(y, reciprocal);
      const uint32x4_t high = vuzp2q_u32(vreinterpretq_u32_u64(first), vreinterpretq_u32_u64(second));
      const uint32x4_t q = vshlq_u32(high, vnegq_s32(vreinterpretq_s32_u32(vshrq_n_u32(packed, 25))));
      const uint32x4_t biased = vaddq_u32(y, vandq_u32(packed, bias_mask));
      x[j] = vmlaq_u32(biased, q, vandq_u32(vshrq_n_u32(packed, 13), field));
    }
  }
  for (int j = 0; j < 8; ++j) vst1q_u32(states + 4 * j, x[j]);
  return words_end;
}

uint16_t* rans_encode32(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t n,
                        uint32_t* states, uint16_t* words_end) {
  return contexts ? encode32<true>(table, contexts, symbols, n, states, words_end)
                  : encode32<false>(table, nullptr, symbols, n, states, words_end);
}

}  // namespace

extern const Kernels kKernelsNeon;
const Kernels kKernelsNeon = {"neon", rans_decode32, rans_decode32_trellis, rans_encode32, LIMOSA_PLAIN_KERNELS(join)};

}  // namespace limosa
