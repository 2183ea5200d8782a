// AVX2. The table of frequencies is read with scalar loads: on processors with slow gathers (Zen) or with
// mitigations for them this is a quarter faster, and nowhere much slower.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "limosa/format.hpp"
#include "limosa/kernels.hpp"
#include "kernels_tables.hpp"
#include "trellis.hpp"

namespace limosa {
namespace {

#include "kernels_loops.hpp"

inline __m256i look_up(const DecodeEntry* t, __m256i index) {
  const __m128i lo = _mm256_castsi256_si128(index), hi = _mm256_extracti128_si256(index, 1);
  const uint64_t a = static_cast<uint64_t>(_mm_cvtsi128_si64(lo)), b = static_cast<uint64_t>(_mm_extract_epi64(lo, 1));
  const uint64_t c = static_cast<uint64_t>(_mm_cvtsi128_si64(hi)), d = static_cast<uint64_t>(_mm_extract_epi64(hi, 1));
  __m128i l = _mm_cvtsi32_si128(static_cast<int>(t[static_cast<uint32_t>(a)]));
  l = _mm_insert_epi32(l, static_cast<int>(t[a >> 32]), 1);
  l = _mm_insert_epi32(l, static_cast<int>(t[static_cast<uint32_t>(b)]), 2);
  l = _mm_insert_epi32(l, static_cast<int>(t[b >> 32]), 3);
  __m128i h = _mm_cvtsi32_si128(static_cast<int>(t[static_cast<uint32_t>(c)]));
  h = _mm_insert_epi32(h, static_cast<int>(t[c >> 32]), 1);
  h = _mm_insert_epi32(h, static_cast<int>(t[static_cast<uint32_t>(d)]), 2);
  h = _mm_insert_epi32(h, static_cast<int>(t[d >> 32]), 3);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(l), h, 1);
}

// What the contexts of symbols come from.
enum class From { nothing, contexts, trellis, classes };  // classes: of the units, and the trellis

// The trellis of the lanes, where there is one: its states, one a lane, and the quantizers that go out.
struct Trellis {
  unsigned class_count;
  uint8_t* states;
  uint8_t* quantizers;
};

inline __m256i widen(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }

// The low bytes of 32 numbers below 256.
inline void narrow(uint8_t* p, const __m256i* v) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i packed = _mm256_packus_epi16(_mm256_packus_epi32(v[0], v[1]), _mm256_packus_epi32(v[2], v[3]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(packed, order));
}

// `contexts` are the classes for From::classes.
template <From kFrom>
size_t decode32(const DecodeEntry* table, unsigned log2_total, const uint8_t* contexts, const uint8_t* words,
                uint32_t* states, uint8_t* out, size_t n, Trellis trellis) {
  constexpr bool kTrellis = kFrom == From::trellis || kFrom == From::classes;
  const __m256i one = _mm256_set1_epi32(1), eight = _mm256_set1_epi32(8);
  const __m256i next_state =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kNextState)));
  // The place of the second quantizer's tables.
  const __m256i quantizer_tables = _mm256_set1_epi32(static_cast<int>(trellis.class_count << log2_total));
  __m256i state[4] = {one, one, one, one};
  if (kTrellis)
    for (int j = 0; j < 4; ++j) state[j] = widen(trellis.states + 8 * j);
  const __m256i slot_mask = _mm256_set1_epi32((1 << log2_total) - 1);
  const __m256i frequency_mask = _mm256_set1_epi32(0xfff), byte_mask = _mm256_set1_epi32(255);
  const __m128i total_shift = _mm_cvtsi32_si128(static_cast<int>(log2_total));
  const uint8_t* at = words;
  __m256i x[4];
  for (int j = 0; j < 4; ++j) x[j] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + 8 * j));
  for (size_t i = 0; i < n; i += 32) {
    __m256i symbol[4], quantizer[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      __m256i index = _mm256_and_si256(x[j], slot_mask);
      if (kFrom == From::contexts || kFrom == From::classes)
        index = _mm256_or_si256(index, _mm256_sll_epi32(widen(contexts + i + 8 * static_cast<size_t>(j)), total_shift));
      if (kTrellis) {
        quantizer[j] = _mm256_and_si256(state[j], one);
        const __m256i second = _mm256_sub_epi32(_mm256_setzero_si256(), quantizer[j]);
        index = _mm256_add_epi32(index, _mm256_and_si256(second, quantizer_tables));
      }
      const __m256i e = look_up(table, index);
      symbol[j] = _mm256_and_si256(e, byte_mask);
      if (kTrellis) {
        // Bit 1 of token + 1 is its parity. The upper bytes look up place 0, which holds 0.
        const __m256i parity = _mm256_and_si256(_mm256_slli_epi32(_mm256_add_epi32(e, one), 2), eight);
        state[j] = _mm256_shuffle_epi8(next_state, _mm256_or_si256(state[j], parity));
      }
      const __m256i f = _mm256_and_si256(_mm256_srli_epi32(e, 8), frequency_mask);
      x[j] = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srl_epi32(x[j], total_shift), f), _mm256_srli_epi32(e, 20));
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(x[j], 16), _mm256_setzero_si256());
      const unsigned mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(low)));
      __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
      const __m256i spread =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kShuffles.spread[mask])));
      w = _mm256_permutevar8x32_epi32(w, spread);
      x[j] = _mm256_blendv_epi8(x[j], _mm256_or_si256(_mm256_slli_epi32(x[j], 16), w), low);
      at += 2 * static_cast<unsigned>(__builtin_popcount(mask));
    }
    narrow(out + i, symbol);
    if (kTrellis) narrow(trellis.quantizers + i, quantizer);
  }
  for (int j = 0; j < 4; ++j) _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + 8 * j), x[j]);
  if (kTrellis) narrow(trellis.states, state);
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
inline const __m128i* entry(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t i) {
  const size_t context = WithContexts ? size_t{contexts[i]} << 8 : 0;
  return reinterpret_cast<const __m128i*>(table + context + symbols[i]);
}

template <bool WithContexts>
inline __m256i entries(const EncodeSymbol* t, const uint8_t* c, const uint8_t* s, size_t i) {
  const __m256i low = _mm256_castsi128_si256(_mm_load_si128(entry<WithContexts>(t, c, s, i)));
  return _mm256_inserti128_si256(low, _mm_load_si128(entry<WithContexts>(t, c, s, i + 4)), 1);
}

template <bool WithContexts>
uint16_t* encode32(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t n,
                   uint32_t* states, uint16_t* words_end) {
  const __m256i bias_mask = _mm256_set1_epi32(0x1fff), field = _mm256_set1_epi32(0xfff), low16 = _mm256_set1_epi32(0xffff);
  __m256i x[4];
  for (int j = 0; j < 4; ++j) x[j] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + 8 * j));
  for (size_t i = n; i != 0; i -= 32) {
#pragma GCC unroll 4
    for (int j = 3; j >= 0; --j) {
      const size_t at = i - 32 + 8 * static_cast<size_t>(j);
      const __m256i a = entries<WithContexts>(table, contexts, symbols, at);
      const __m256i b = entries<WithContexts>(table, contexts, symbols, at + 1);
      const __m256i c = entries<WithContexts>(table, contexts, symbols, at + 2);
      const __m256i d = entries<WithContexts>(table, contexts, symbols, at + 3);
      const __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
      const __m256i limit = _mm256_unpacklo_epi64(ab, cd), reciprocal = _mm256_unpackhi_epi64(ab, cd);
      const __m256i packed = _mm256_unpacklo_epi64(_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));

      __m256i y = x[j];
      const __m256i fits = _mm256_cmpeq_epi32(_mm256_min_epu32(y, limit), y);
      const unsigned mask = ~static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(fits))) & 255;
      const __m256i words = _mm256_and_si256(y, low16);
      const __m128i eight = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
      const __m128i shuffle = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kShuffles.compact[mask]));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(words_end - 8), _mm_shuffle_epi8(eight, shuffle));
      words_end -= __builtin_popcount(mask);
      y = _mm256_blendv_epi8(_mm256_srli_epi32(y, 16), y, fits);

      const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(y, reciprocal), 32);
      const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(y, 32), _mm256_srli_epi64(reciprocal, 32));
      const __m256i high = _mm256_blend_epi32(even, odd, 0xaa);
      const __m256i q = _mm256_srlv_epi32(high, _mm256_srli_epi32(packed, 25));
      const __m256i scaled = _mm256_mullo_epi32(q, _mm256_and_si256(_mm256_srli_epi32(packed, 13), field));
      x[j] = _mm256_add_epi32(y, _mm256_add_epi32(_mm256_and_si256(packed, bias_mask), scaled));
    }
  }
  for (int j = 0; j < 4; ++j) _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + 8 * j), x[j]);
  return words_end;
}

uint16_t* rans_encode32(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t n,
                        uint32_t* states, uint16_t* words_end) {
  return contexts ? encode32<true>(table, contexts, symbols, n, states, words_end)
                  : encode32<false>(table, nullptr, symbols, n, states, words_end);
}

// 32 units of 16 bits from their symbols and rests of 6 or 8 bits, one a byte.
template <unsigned R>
inline void join32(__m256i symbols, __m256i rest, __m256i window, __m128i low, __m128i zeros, uint8_t* units) {
  const __m256i low_mask = _mm256_set1_epi16((1 << (R - 1)) - 1), sign_mask = _mm256_set1_epi16(1 << (R - 1));
  const __m256i s[2] = {_mm256_cvtepu8_epi16(_mm256_castsi256_si128(symbols)),
                        _mm256_cvtepu8_epi16(_mm256_extracti128_si256(symbols, 1))};
  const __m256i r[2] = {_mm256_cvtepu8_epi16(_mm256_castsi256_si128(rest)),
                        _mm256_cvtepu8_epi16(_mm256_extracti128_si256(rest, 1))};
  for (int h = 0; h < 2; ++h) {
    const __m256i top = _mm256_sll_epi16(_mm256_add_epi16(s[h], window), low);
    const __m256i mantissa = _mm256_sll_epi16(_mm256_and_si256(r[h], low_mask), zeros);
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(r[h], sign_mask), 16 - R);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(units) + h, _mm256_or_si256(top, _mm256_or_si256(mantissa, sign)));
  }
}

inline __m256i load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// BF16 with two joined bits: rests of 6 bits, a plane of 4 and a plane of 2.
void join16_6(const uint8_t* symbols, const uint8_t* planes, size_t first, size_t n, size_t total, unsigned zeros,
              uint32_t window, uint8_t* units) {
  const uint8_t* fours = planes + first / 2;
  const uint8_t* twos = planes + plane_bytes(total, 4) + first / 4;
  const __m256i w = _mm256_set1_epi16(static_cast<short>(window)), m4 = _mm256_set1_epi8(15), m2 = _mm256_set1_epi8(0x30);
  const __m128i low = _mm_cvtsi32_si128(static_cast<int>(5 + zeros)), z = _mm_cvtsi32_si128(static_cast<int>(zeros));
  for (size_t at = 0; at < n; at += 128, symbols += 128, fours += 64, twos += 32, units += 256) {
    const __m256i two = load32(twos), a = load32(fours), b = load32(fours + 32);
    const __m256i rest[4] = {
        _mm256_or_si256(_mm256_and_si256(a, m4), _mm256_and_si256(_mm256_slli_epi16(two, 4), m2)),
        _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(a, 4), m4), _mm256_and_si256(_mm256_slli_epi16(two, 2), m2)),
        _mm256_or_si256(_mm256_and_si256(b, m4), _mm256_and_si256(two, m2)),
        _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(b, 4), m4), _mm256_and_si256(_mm256_srli_epi16(two, 2), m2))};
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) join32<6>(load32(symbols + 32 * q), rest[q], w, low, z, units + 64 * q);
  }
}

// F16 with three joined bits: rests of one byte.
void join16_8(const uint8_t* symbols, const uint8_t* planes, size_t first, size_t n, unsigned zeros, uint32_t window,
              uint8_t* units) {
  const __m256i w = _mm256_set1_epi16(static_cast<short>(window));
  const __m128i low = _mm_cvtsi32_si128(static_cast<int>(7 + zeros)), z = _mm_cvtsi32_si128(static_cast<int>(zeros));
  for (size_t at = 0; at < n; at += 32)
    join32<8>(load32(symbols + at), load32(planes + first + at), w, low, z, units + 2 * at);
}

void join_avx2(const uint8_t* symbols, const uint8_t* planes, unsigned width, size_t first, size_t n, size_t total,
               unsigned top, unsigned zeros, uint32_t window, uint8_t* units) {
  const unsigned bits = width - top - zeros;
  size_t whole = 0;
  if (width == 16 && (bits == 6 || bits == 8)) {
    whole = n - n % kGroup;
    if (bits == 6) join16_6(symbols, planes, first, whole, total, zeros, window, units);
    else join16_8(symbols, planes, first, whole, zeros, window, units);
  }
  if (whole < n) join(symbols + whole, planes, width, first + whole, n - whole, total, top, zeros, window, units + whole * (width / 8));
}

}  // namespace

extern const Kernels kKernelsAvx2;
const Kernels kKernelsAvx2 = {"avx2", rans_decode32, rans_decode32_trellis, rans_encode32, LIMOSA_PLAIN_KERNELS(join_avx2)};

}  // namespace limosa
