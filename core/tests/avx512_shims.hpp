// The intrinsics of kernels_avx512.cpp that SIMDe 0.7.4 lacks, from their definitions; a newer SIMDe has its own.
// The header of SIMDe comes first.
#pragma once
#include <cstdint>
#include <cstring>

namespace shims {

template <class To, class Vector, class From>
Vector convert(const void* from, size_t n) {  // n elements, zero-extended or cut
  To to[sizeof(Vector) / sizeof(To)] = {};
  for (size_t i = 0; i < n; ++i) {
    From v;
    std::memcpy(&v, static_cast<const uint8_t*>(from) + i * sizeof(From), sizeof v);
    to[i] = static_cast<To>(v);
  }
  Vector out;
  std::memcpy(&out, to, sizeof out);
  return out;
}

struct Lanes {
  uint32_t v[16];
  explicit Lanes(const __m512i& x) { std::memcpy(v, &x, sizeof v); }
  __m512i vector() const {
    __m512i x;
    std::memcpy(&x, v, sizeof v);
    return x;
  }
};

inline uint16_t less(const Lanes& a, const Lanes& b) {
  unsigned mask = 0;
  for (unsigned i = 0; i < 16; ++i) mask |= static_cast<unsigned>(a.v[i] < b.v[i]) << i;
  return static_cast<uint16_t>(mask);
}

inline __m512i multiply(Lanes a, const Lanes& b) {
  for (unsigned i = 0; i < 16; ++i) a.v[i] *= b.v[i];
  return a.vector();
}

inline __m512i mask_shift_right(const Lanes& otherwise, uint16_t mask, Lanes a, unsigned count) {
  for (unsigned i = 0; i < 16; ++i) a.v[i] = mask >> i & 1 ? a.v[i] >> count : otherwise.v[i];
  return a.vector();
}

inline __m512i expand(uint16_t mask, const Lanes& a) {
  Lanes out = a;
  for (unsigned i = 0, from = 0; i < 16; ++i) out.v[i] = mask >> i & 1 ? a.v[from++] : 0;
  return out.vector();
}

inline void mask_store(void* to, uint16_t mask, const __m256i& a) {
  for (size_t i = 0; i < 16; ++i)
    if (mask >> i & 1) std::memcpy(static_cast<uint16_t*>(to) + i, reinterpret_cast<const uint8_t*>(&a) + 2 * i, 2);
}

// The argument may be an expression, so it gets an address here.
template <class To, class Vector, class From, class Source>
Vector convert_all(const Source& a) {
  constexpr size_t most = sizeof(Source) / sizeof(From), room = sizeof(Vector) / sizeof(To);
  return convert<To, Vector, From>(&a, most < room ? most : room);
}

}  // namespace shims

#if !defined(_mm512_cvtepu8_epi32)
#define _mm512_cvtepu8_epi32(a) (shims::convert_all<uint32_t, __m512i, uint8_t>(a))
#endif
#if !defined(_mm512_cvtepu16_epi32)
#define _mm512_cvtepu16_epi32(a) (shims::convert_all<uint32_t, __m512i, uint16_t>(a))
#endif
#if !defined(_mm512_cvtepu8_epi16)
#define _mm512_cvtepu8_epi16(a) (shims::convert_all<uint16_t, __m512i, uint8_t>(a))
#endif
#if !defined(_mm512_cvtepi32_epi8)
#define _mm512_cvtepi32_epi8(a) (shims::convert_all<uint8_t, __m128i, uint32_t>(a))
#endif
#if !defined(_mm512_cvtepi32_epi16)
#define _mm512_cvtepi32_epi16(a) (shims::convert_all<uint16_t, __m256i, uint32_t>(a))
#endif
#if !defined(_mm512_cmplt_epu32_mask)
#define _mm512_cmplt_epu32_mask(a, b) (shims::less(shims::Lanes(a), shims::Lanes(b)))
#endif
#if !defined(_mm512_cmpgt_epu32_mask)
#define _mm512_cmpgt_epu32_mask(a, b) (shims::less(shims::Lanes(b), shims::Lanes(a)))
#endif
#if !defined(_mm512_mask_srli_epi32)
#define _mm512_mask_srli_epi32(src, k, a, n) (shims::mask_shift_right(shims::Lanes(src), k, shims::Lanes(a), n))
#endif
#if !defined(_mm512_maskz_expand_epi32)
#define _mm512_maskz_expand_epi32(k, a) (shims::expand(k, shims::Lanes(a)))
#endif
#if !defined(_mm256_mask_storeu_epi16)
#define _mm256_mask_storeu_epi16(to, k, a) (shims::mask_store(to, k, a))
#endif
// That of SIMDe multiplies signed numbers, which may overflow.
#undef _mm512_mullo_epi32
#define _mm512_mullo_epi32(a, b) (shims::multiply(shims::Lanes(a), shims::Lanes(b)))
