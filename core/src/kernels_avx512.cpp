// AVX-512: 16 lanes a vector. The table of frequencies is read with scalar loads, as for AVX2: some of these
// processors have slow gathers, and others mitigations that make them slow.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 means its own avx512fintrin.h
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "limosa/format.hpp"
#include "limosa/kernels.hpp"
#include "trellis.hpp"

namespace limosa {
namespace {

#include "kernels_loops.hpp"

// Two entries in the low half of a vector.
inline __m128i look_up2(const DecodeEntry* t, const uint32_t* index) {
  return _mm_insert_epi32(_mm_cvtsi32_si128(static_cast<int>(t[index[0]])), static_cast<int>(t[index[1]]), 1);
}

inline __m128i look_up4(const DecodeEntry* t, const uint32_t* index) {
  return _mm_unpacklo_epi64(look_up2(t, index), look_up2(t, index + 2));
}

inline __m512i look_up(const DecodeEntry* t, __m512i index) {
  alignas(64) uint32_t at[16];
  _mm512_store_si512(at, index);
  __m512i e = _mm512_castsi128_si512(look_up4(t, at));
  e = _mm512_inserti32x4(e, look_up4(t, at + 4), 1);
  e = _mm512_inserti32x4(e, look_up4(t, at + 8), 2);
  return _mm512_inserti32x4(e, look_up4(t, at + 12), 3);
}

// What the contexts of symbols come from.
enum class From { nothing, contexts, trellis, classes };  // classes: of the units, and the trellis

// The trellis of the lanes, where there is one: its states, one a lane, and the quantizers that go out.
struct Trellis {
  unsigned class_count;
  uint8_t* states;
  uint8_t* quantizers;
};

inline __m512i widen(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline void narrow(uint8_t* p, __m512i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v)); }

// `contexts` are the classes for From::classes.
template <From kFrom>
size_t decode32(const DecodeEntry* table, unsigned log2_total, const uint8_t* contexts, const uint8_t* words,
                uint32_t* states, uint8_t* out, size_t n, Trellis trellis) {
  constexpr bool kTrellis = kFrom == From::trellis || kFrom == From::classes;
  const __m512i one = _mm512_set1_epi32(1), eight = _mm512_set1_epi32(8);
  const __m512i next_state = kTrellis ? widen(kNextState) : one;
  // Quantizer 0 or 1 times this is the place of its tables.
  const __m512i quantizer_tables = _mm512_set1_epi32(static_cast<int>(trellis.class_count << log2_total));
  __m512i state[2] = {one, one};
  if (kTrellis)
    for (int j = 0; j < 2; ++j) state[j] = widen(trellis.states + 16 * j);
  const __m512i slot_mask = _mm512_set1_epi32((1 << log2_total) - 1), frequency_mask = _mm512_set1_epi32(0xfff);
  const __m512i low = _mm512_set1_epi32(static_cast<int>(kStateLow));
  const __m128i total_shift = _mm_cvtsi32_si128(static_cast<int>(log2_total));
  const uint8_t* at = words;
  __m512i x[2] = {_mm512_loadu_si512(states), _mm512_loadu_si512(states + 16)};
  for (size_t i = 0; i < n; i += 32) {
#pragma GCC unroll 2
    for (size_t j = 0; j < 2; ++j) {
      __m512i index = _mm512_and_si512(x[j], slot_mask);
      if (kFrom == From::contexts || kFrom == From::classes)
        index = _mm512_or_si512(index, _mm512_sll_epi32(widen(contexts + i + 16 * j), total_shift));
      if (kTrellis) {
        const __mmask16 second = _mm512_test_epi32_mask(state[j], one);
        index = _mm512_mask_add_epi32(index, second, index, quantizer_tables);
        narrow(trellis.quantizers + i + 16 * j, _mm512_and_si512(state[j], one));
      }
      const __m512i e = look_up(table, index);
      narrow(out + i + 16 * j, e);
      if (kTrellis) {
        // Bit 1 of token + 1 is its parity.
        const __m512i parity = _mm512_and_si512(_mm512_slli_epi32(_mm512_add_epi32(e, one), 2), eight);
        state[j] = _mm512_permutexvar_epi32(_mm512_or_si512(state[j], parity), next_state);
      }
      const __m512i f = _mm512_and_si512(_mm512_srli_epi32(e, 8), frequency_mask);
      x[j] = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srl_epi32(x[j], total_shift), f), _mm512_srli_epi32(e, 20));
    }
#pragma GCC unroll 2
    for (size_t j = 0; j < 2; ++j) {
      const __mmask16 short_of = _mm512_cmplt_epu32_mask(x[j], low);
      const __m512i next = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
      const __m512i w = _mm512_maskz_expand_epi32(short_of, next);
      x[j] = _mm512_mask_or_epi32(x[j], short_of, _mm512_slli_epi32(x[j], 16), w);
      at += 2 * static_cast<unsigned>(__builtin_popcount(short_of));
    }
  }
  _mm512_storeu_si512(states, x[0]);
  _mm512_storeu_si512(states + 16, x[1]);
  if (kTrellis)
    for (int j = 0; j < 2; ++j) narrow(trellis.states + 16 * j, state[j]);
  return static_cast<size_t>(at - words) / 2;
}

size_t rans_decode32(const DecodeEntry* table, unsigned log2_total, const uint8_t* contexts, const uint8_t* words,
                     uint32_t* states, uint8_t* out, size_t n) {
  return contexts ? decode32<From::contexts>(table, log2_total, contexts, words, states, out, n, {})
                  : decode32<From::nothing>(table, log2_total, nullptr, words, states, out, n, {});
}

size_t rans_decode32_trellis(const DecodeEntry* table, unsigned log2_total, const uint8_t* classes, unsigned class_count,
                             const uint8_t* words, uint32_t* states, uint8_t* trellis, uint8_t* out,
                             uint8_t* quantizers, size_t n) {
  const Trellis t{class_count, trellis, quantizers};
  return classes ? decode32<From::classes>(table, log2_total, classes, words, states, out, n, t)
                 : decode32<From::trellis>(table, log2_total, nullptr, words, states, out, n, t);
}

template <bool WithContexts>
inline __m128i entry(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t i) {
  const size_t context = WithContexts ? size_t{contexts[i]} << 8 : 0;
  return _mm_load_si128(reinterpret_cast<const __m128i*>(table + context + symbols[i]));
}

// The entries of symbols i, i + 4, i + 8 and i + 12.
template <bool WithContexts>
inline __m512i entries(const EncodeSymbol* t, const uint8_t* c, const uint8_t* s, size_t i) {
  __m512i e = _mm512_castsi128_si512(entry<WithContexts>(t, c, s, i));
  e = _mm512_inserti32x4(e, entry<WithContexts>(t, c, s, i + 4), 1);
  e = _mm512_inserti32x4(e, entry<WithContexts>(t, c, s, i + 8), 2);
  return _mm512_inserti32x4(e, entry<WithContexts>(t, c, s, i + 12), 3);
}

template <bool WithContexts>
uint16_t* encode32(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t n,
                   uint32_t* states, uint16_t* words_end) {
  const __m512i bias_mask = _mm512_set1_epi32(0x1fff), field = _mm512_set1_epi32(0xfff);
  __m512i x[2] = {_mm512_loadu_si512(states), _mm512_loadu_si512(states + 16)};
  for (size_t i = n; i != 0; i -= 32) {
#pragma GCC unroll 2
    for (int j = 1; j >= 0; --j) {
      const size_t at = i - 32 + 16 * static_cast<size_t>(j);
      const __m512i a = entries<WithContexts>(table, contexts, symbols, at);
      const __m512i b = entries<WithContexts>(table, contexts, symbols, at + 1);
      const __m512i c = entries<WithContexts>(table, contexts, symbols, at + 2);
      const __m512i d = entries<WithContexts>(table, contexts, symbols, at + 3);
      const __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
      const __m512i limit = _mm512_unpacklo_epi64(ab, cd), reciprocal = _mm512_unpackhi_epi64(ab, cd);
      const __m512i packed = _mm512_unpacklo_epi64(_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));

      __m512i y = x[j];
      const __mmask16 over = _mm512_cmpgt_epu32_mask(y, limit);
      const unsigned count = static_cast<unsigned>(__builtin_popcount(over));
      words_end -= count;
      _mm256_mask_storeu_epi16(words_end, static_cast<__mmask16>((1u << count) - 1),
                               _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(over, y)));
      y = _mm512_mask_srli_epi32(y, over, y, 16);

      const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(y, reciprocal), 32);
      const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(y, 32), _mm512_srli_epi64(reciprocal, 32));
      const __m512i high = _mm512_mask_mov_epi32(even, 0xaaaa, odd);
      const __m512i q = _mm512_srlv_epi32(high, _mm512_srli_epi32(packed, 25));
      const __m512i scaled = _mm512_mullo_epi32(q, _mm512_and_si512(_mm512_srli_epi32(packed, 13), field));
      x[j] = _mm512_add_epi32(y, _mm512_add_epi32(_mm512_and_si512(packed, bias_mask), scaled));
    }
  }
  _mm512_storeu_si512(states, x[0]);
  _mm512_storeu_si512(states + 16, x[1]);
  return words_end;
}

uint16_t* rans_encode32(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t n,
                        uint32_t* states, uint16_t* words_end) {
  return contexts ? encode32<true>(table, contexts, symbols, n, states, words_end)
                  : encode32<false>(table, nullptr, symbols, n, states, words_end);
}

// What a join of 16-bit units needs in every vector.
template <unsigned R>
struct Join {
  __m512i window;
  __m128i low, zeros;  // shifts

  Join(uint32_t w, unsigned z)
      : window(_mm512_set1_epi16(static_cast<short>(w))),
        low(_mm_cvtsi32_si128(static_cast<int>(R - 1 + z))),
        zeros(_mm_cvtsi32_si128(static_cast<int>(z))) {}

  // 32 units from their symbols and rests of R bits, one a byte.
  void operator()(__m256i symbols, __m256i rest, uint8_t* units) const {
    const __m512i s = _mm512_cvtepu8_epi16(symbols), r = _mm512_cvtepu8_epi16(rest);
    const __m512i top = _mm512_sll_epi16(_mm512_add_epi16(s, window), low);
    const __m512i mantissa = _mm512_sll_epi16(_mm512_and_si512(r, _mm512_set1_epi16((1 << (R - 1)) - 1)), zeros);
    const __m512i sign = _mm512_slli_epi16(_mm512_and_si512(r, _mm512_set1_epi16(1 << (R - 1))), 16 - R);
    _mm512_storeu_si512(units, _mm512_or_si512(top, _mm512_or_si512(mantissa, sign)));
  }
};

inline __m256i load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// BF16 with two joined bits: rests of 6 bits, a plane of 4 and a plane of 2.
void join16_6(const uint8_t* symbols, const uint8_t* planes, size_t first, size_t n, size_t total, unsigned zeros,
              uint32_t window, uint8_t* units) {
  const uint8_t* fours = planes + first / 2;
  const uint8_t* twos = planes + plane_bytes(total, 4) + first / 4;
  const Join<6> join32(window, zeros);
  const __m256i m4 = _mm256_set1_epi8(15), m2 = _mm256_set1_epi8(0x30);
  for (size_t at = 0; at < n; at += 128, symbols += 128, fours += 64, twos += 32, units += 256) {
    const __m256i two = load32(twos), a = load32(fours), b = load32(fours + 32);
    const __m256i a_high = _mm256_srli_epi16(a, 4), b_high = _mm256_srli_epi16(b, 4);
    const auto rest = [&](__m256i four, __m256i shifted) {
      return _mm256_or_si256(_mm256_and_si256(four, m4), _mm256_and_si256(shifted, m2));
    };
    join32(load32(symbols), rest(a, _mm256_slli_epi16(two, 4)), units);
    join32(load32(symbols + 32), rest(a_high, _mm256_slli_epi16(two, 2)), units + 64);
    join32(load32(symbols + 64), rest(b, two), units + 128);
    join32(load32(symbols + 96), rest(b_high, _mm256_srli_epi16(two, 2)), units + 192);
  }
}

// F16 with three joined bits: rests of one byte.
void join16_8(const uint8_t* symbols, const uint8_t* planes, size_t first, size_t n, unsigned zeros, uint32_t window,
              uint8_t* units) {
  const Join<8> join32(window, zeros);
  for (size_t at = 0; at < n; at += 32) join32(load32(symbols + at), load32(planes + first + at), units + 2 * at);
}

void join_avx512(const uint8_t* symbols, const uint8_t* planes, unsigned width, size_t first, size_t n, size_t total,
                 unsigned top, unsigned zeros, uint32_t window, uint8_t* units) {
  const unsigned bits = width - top - zeros;
  size_t whole = 0;
  if (width == 16 && (bits == 6 || bits == 8)) {
    whole = n - n % kGroup;
    if (bits == 6) join16_6(symbols, planes, first, whole, total, zeros, window, units);
    else join16_8(symbols, planes, first, whole, zeros, window, units);
  }
  if (whole < n)
    join(symbols + whole, planes, width, first + whole, n - whole, total, top, zeros, window, units + whole * (width / 8));
}

}  // namespace

extern const Kernels kKernelsAvx512;
const Kernels kKernelsAvx512 = {"avx512", rans_decode32, rans_decode32_trellis, rans_encode32, LIMOSA_PLAIN_KERNELS(join_avx512)};

}  // namespace limosa
