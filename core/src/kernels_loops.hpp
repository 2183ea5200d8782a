// The plain loops behind every table of kernels. This file is included by each kernels_<isa>.cpp, inside a
// namespace without a name, so that the compiler vectorises it for that instruction set. It must not call
// anything inline from outside: the linker could keep a copy that needs a newer processor.
//
// No include guard and no includes: kernels.hpp, trellis.hpp, cstdint and cstring come first in the including file.

constexpr size_t kGroup = 256;  // units whose bit planes fill whole groups (docs/format.md 3.4)

template <class T>
inline T load(const uint8_t* p) {
  T v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(uint8_t* p, T v) {
  __builtin_memcpy(p, &v, sizeof v);
}

template <class T>
void top_histogram_of(const uint8_t* units, size_t n, unsigned bits, uint32_t* bins4) {
  const unsigned shift = 8 * sizeof(T) - 1 - bits;
  const uint32_t mask = (1u << bits) - 1;
  const size_t bins = size_t{1} << bits;
  size_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (size_t k = 0; k < 4; ++k)
      ++bins4[k * bins + ((load<T>(units + (i + k) * sizeof(T)) >> shift) & mask)];
  for (; i < n; ++i) ++bins4[(load<T>(units + i * sizeof(T)) >> shift) & mask];
}

void top_histogram(const uint8_t* units, unsigned width, size_t n, unsigned bits, uint32_t* bins4) {
  if (width == 16) return top_histogram_of<uint16_t>(units, n, bits, bins4);
  if (width == 32) return top_histogram_of<uint32_t>(units, n, bits, bins4);
  top_histogram_of<uint64_t>(units, n, bits, bins4);
}

void byte_histogram(const uint8_t* bytes, size_t n, uint32_t* bins4) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const uint64_t v = load<uint64_t>(bytes + i);
    for (unsigned k = 0; k < 8; ++k) ++bins4[256 * (k & 3) + (v >> (8 * k) & 255)];
  }
  for (; i < n; ++i) ++bins4[bytes[i]];
}

template <class T>
void or_units_of(const uint8_t* units, size_t n, uint64_t* any, uint64_t* differing) {
  const T first = load<T>(units);
  T all = 0, diff = 0;
  for (size_t i = 0; i < n; ++i) {
    const T u = load<T>(units + i * sizeof(T));
    all = static_cast<T>(all | u);
    diff = static_cast<T>(diff | (u ^ first));
  }
  *any = all;
  *differing = diff;
}

void or_units(const uint8_t* units, unsigned width, size_t n, uint64_t* any, uint64_t* differing) {
  if (width == 8) return or_units_of<uint8_t>(units, n, any, differing);
  if (width == 16) return or_units_of<uint16_t>(units, n, any, differing);
  if (width == 32) return or_units_of<uint32_t>(units, n, any, differing);
  or_units_of<uint64_t>(units, n, any, differing);
}

#include "kernels_planes.hpp"

// o(u) of docs/format.md 3.8 in W-bit arithmetic; it is its own inverse.
template <class T, bool Float>
inline T ordered(T u) {
  if (!Float) return u;
  const T negative = static_cast<T>(T{0} - static_cast<T>(u >> (8 * sizeof(T) - 1)));
  return static_cast<T>(u ^ static_cast<T>(negative >> 1));
}

template <class T, bool Float>
size_t steps_of(const uint8_t* units, const uint8_t* base, size_t n, uint8_t* values) {
  constexpr unsigned sign = 8 * sizeof(T) - 1;
  size_t equal = 0;
  for (size_t at = 0; at < n; at += kGroup) {
    const size_t count = n - at < kGroup ? n - at : kGroup;
    T same = 0;  // at most 256 counted in lanes no wider than T; 8-bit lanes wrap only at 256 exactly
    size_t wide = 0;
    for (size_t i = at; i < at + count; ++i) {
      const T d = static_cast<T>(ordered<T, Float>(load<T>(units + i * sizeof(T))) -
                                 ordered<T, Float>(load<T>(base + i * sizeof(T))));
      const T z = static_cast<T>(static_cast<T>(d << 1) ^ static_cast<T>(T{0} - static_cast<T>(d >> sign)));
      store<T>(values + i * sizeof(T), z);
      if (sizeof(T) == 1) wide += z == 0; else same = static_cast<T>(same + (z == 0));
    }
    equal += sizeof(T) == 1 ? wide : same;
  }
  return n - equal;
}

size_t steps(const uint8_t* units, const uint8_t* base, unsigned width, unsigned, bool is_float, size_t n,
             uint8_t* values) {
  if (width == 8) return steps_of<uint8_t, false>(units, base, n, values);
  if (width == 16)
    return is_float ? steps_of<uint16_t, true>(units, base, n, values) : steps_of<uint16_t, false>(units, base, n, values);
  if (width == 32)
    return is_float ? steps_of<uint32_t, true>(units, base, n, values) : steps_of<uint32_t, false>(units, base, n, values);
  return is_float ? steps_of<uint64_t, true>(units, base, n, values) : steps_of<uint64_t, false>(units, base, n, values);
}

template <class T, bool Float>
void apply_steps_of(const uint8_t* values, const uint8_t* base, size_t n, uint8_t* units) {
  for (size_t i = 0; i < n; ++i) {
    const T z = load<T>(values + i * sizeof(T));
    const T d = static_cast<T>(static_cast<T>(z >> 1) ^ static_cast<T>(T{0} - static_cast<T>(z & 1)));
    const T o = static_cast<T>(ordered<T, Float>(load<T>(base + i * sizeof(T))) + d);
    store<T>(units + i * sizeof(T), ordered<T, Float>(o));
  }
}

void apply_steps(const uint8_t* values, const uint8_t* base, unsigned width, bool is_float, size_t n, uint8_t* units) {
  if (width == 8) return apply_steps_of<uint8_t, false>(values, base, n, units);
  if (width == 16)
    return is_float ? apply_steps_of<uint16_t, true>(values, base, n, units)
                    : apply_steps_of<uint16_t, false>(values, base, n, units);
  if (width == 32)
    return is_float ? apply_steps_of<uint32_t, true>(values, base, n, units)
                    : apply_steps_of<uint32_t, false>(values, base, n, units);
  return is_float ? apply_steps_of<uint64_t, true>(values, base, n, units)
                  : apply_steps_of<uint64_t, false>(values, base, n, units);
}

template <class T>
void contexts_of(const uint8_t* base, unsigned exponent, unsigned mantissa, size_t n, unsigned first, unsigned count,
                 uint8_t* out) {
  const int mask = (1 << exponent) - 1;
  for (size_t i = 0; i < n; ++i) {
    const int e = static_cast<int>(load<T>(base + i * sizeof(T)) >> mantissa) & mask;
    int c = e - static_cast<int>(first);
    c = c < 0 ? 0 : c;
    out[i] = static_cast<uint8_t>(c < static_cast<int>(count) ? c : static_cast<int>(count) - 1);
  }
}

void contexts(const uint8_t* base, unsigned width, unsigned exponent, unsigned mantissa, size_t n, unsigned first,
              unsigned count, uint8_t* out) {
  if (width == 16) return contexts_of<uint16_t>(base, exponent, mantissa, n, first, count, out);
  if (width == 32) return contexts_of<uint32_t>(base, exponent, mantissa, n, first, count, out);
  contexts_of<uint64_t>(base, exponent, mantissa, n, first, count, out);
}

// Bit i: byte i of 32 is at least `least` (1 to 255).
inline uint32_t mask_at_least(const uint8_t* t, uint8_t least) {
#if defined(__AVX2__)
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t));
  const __m256i high = _mm256_max_epu8(v, _mm256_set1_epi8(static_cast<char>(least)));
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, v)));
#else
  uint32_t mask = 0;
  for (unsigned i = 0; i < 32; ++i) mask |= static_cast<uint32_t>(t[i] >= least) << i;
  return mask;
#endif
}

// The value of one token; `bit` moves over its extra bits.
template <class T>
inline T expand_token(uint64_t entry, const uint8_t* extra, uint64_t* bit) {
  const unsigned bits = static_cast<unsigned>(entry & 255);
  const uint64_t word = load<uint64_t>(extra + (*bit >> 3)) >> (*bit & 7);
  *bit += bits;
  return static_cast<T>((entry >> 8) + (word & ~(~uint64_t{0} << bits)));
}

template <class T>
size_t expand_tokens_of(const uint8_t* tokens, size_t n, const uint64_t* entries, unsigned direct, unsigned invalid,
                        const uint8_t* extra, uint64_t* at, uint64_t end, uint8_t* values) {
  constexpr size_t piece = 32;
  constexpr int few = 12;  // with more tokens that have extra bits than this, all go through the table
  uint64_t bit = *at;
  size_t done = 0;
  for (; n - done >= piece && bit <= end; done += piece) {
    const uint8_t* t = tokens + done;
    uint8_t* out = values + done * sizeof(T);
    if (invalid < 256 && mask_at_least(t, static_cast<uint8_t>(invalid))) break;
    uint32_t wide = mask_at_least(t, static_cast<uint8_t>(direct));
    if (__builtin_popcount(wide) > few) {
      for (size_t i = 0; i < piece; ++i) store<T>(out + i * sizeof(T), expand_token<T>(entries[t[i]], extra, &bit));
      continue;
    }
    for (size_t i = 0; i < piece; ++i) store<T>(out + i * sizeof(T), t[i]);
    for (; wide; wide &= wide - 1) {
      const unsigned i = static_cast<unsigned>(__builtin_ctz(wide));
      store<T>(out + i * sizeof(T), expand_token<T>(entries[t[i]], extra, &bit));
    }
  }
  if (n - done < piece)
    for (; done < n && bit <= end && tokens[done] < invalid; ++done)
      store<T>(values + done * sizeof(T), expand_token<T>(entries[tokens[done]], extra, &bit));
  *at = bit;
  return done;
}

size_t expand_tokens(const uint8_t* tokens, size_t n, const uint64_t* entries, unsigned direct, unsigned invalid,
                     const uint8_t* extra, uint64_t* at, uint64_t end, unsigned width, uint8_t* values) {
  if (width == 8) return expand_tokens_of<uint8_t>(tokens, n, entries, direct, invalid, extra, at, end, values);
  if (width == 16) return expand_tokens_of<uint16_t>(tokens, n, entries, direct, invalid, extra, at, end, values);
  return expand_tokens_of<uint32_t>(tokens, n, entries, direct, invalid, extra, at, end, values);
}

void xor_bytes(const uint8_t* a, const uint8_t* b, size_t n, uint8_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = a[i] ^ b[i];
}

void gather_plane(const uint8_t* units, size_t stride, size_t n, uint8_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = units[i * stride];
}

void scatter_plane(const uint8_t* plane, size_t stride, size_t n, uint8_t* units) {
  for (size_t i = 0; i < n; ++i) units[i * stride] = plane[i];
}

#include "kernels_levels.hpp"
#include "kernels_trellis.hpp"

// What follows the rANS in Kernels; JOIN is `join` or an own version of it.
#define LIMOSA_PLAIN_KERNELS(JOIN)                                                                            \
  top_histogram, byte_histogram, or_units, split, JOIN, steps, apply_steps, contexts, expand_tokens, xor_bytes, gather_plane, \
      scatter_plane, level_integers, dequantize, level_targets, to_fixed, quantize,                                          \
      {trellis_forward_of<32>, trellis_forward_of<1>}, {trellis_back_of<32>, trellis_back_of<1>}
