// What the fuzz targets share: how the first bytes of an input choose the case, and decoding with two tables of kernels.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "limosa/chunk.hpp"

namespace limosa::fuzz {

constexpr size_t kHead = 8;
constexpr size_t kMostUnits = 4096;
constexpr size_t kLong = 16384;  // from here on the encoder writes streams of 32 lanes

enum Flag : uint8_t {
  has_base = 1,
  has_copy = 2,     // decode_chunk only
  base_kind = 6,    // the others: 0 equal, 2 unrelated, 4 few differences, 6 all near
  drifting = 8,     // units that do not repeat
  is_long = 16,
  has_digits = 32,
  has_levels = 64,  // in place of digits: their byte says how
};

// dtype, units (2), flags, digits, kernels, seed (2)
struct Head {
  unsigned dtype;
  size_t n;
  uint8_t flags;
  int digits;  // -1 to 18
  uint8_t kernels;
  uint32_t seed;
  size_t columns, first_column;  // 0: no rows
  LevelsRequest levels{};  // a step of 0: none

  explicit Head(const uint8_t* p)
      : dtype(p[0] % kDtypeCount),
        n(1 + (p[1] | p[2] << 8) % kMostUnits + (p[3] & is_long ? kLong : 0)),
        flags(p[3]),
        digits(p[3] & has_digits && !(p[3] & has_levels) ? static_cast<int>(p[4] % (kMaxDigits + 1)) : -1),
        kernels(p[5]),
        seed(p[6] | uint32_t{p[7]} << 8),
        columns(p[4] & 128 ? 1 + seed % 300 : 0),
        first_column(columns ? seed % 7 % columns : 0) {
    if (!(p[3] & has_levels)) return;
    constexpr float steps[4] = {0.001f, 0.02f, 3.0f, 1e-30f};
    const float step = steps[p[4] >> 4 & 3], lambda = p[4] & 1 ? 0.4f : 0.1f;
    levels = {step, bool(p[4] & 1), lambda, bool(p[4] & 2), bool(p[4] & 4), bool(p[4] & 8), p[4] & 64 ? step : 0};
  }

  const LevelsRequest* request() const { return levels.step > 0 ? &levels : nullptr; }
  bool lossless() const { return digits < 0 && !(request() && kDtypes[dtype].is_float()); }

  size_t width() const { return kDtypes[dtype].unit_bytes(); }
  size_t bytes() const { return n * width(); }
};

inline void require(bool condition) {
  if (!condition) std::abort();
}

// Bytes that depend on the seed alone; few different ones for an even seed.
inline Bytes noise(size_t size, uint32_t seed) {
  Bytes b(size);
  uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
  for (uint8_t& v : b) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    v = static_cast<uint8_t>(seed % 2 ? x >> 32 : 0x3c + (x >> 32 & 3));
  }
  return b;
}

// `data` over and over.
inline Bytes make_units(const Head& head, const uint8_t* data, size_t size) {
  Bytes units(head.bytes());
  if (size == 0) return units;
  for (size_t i = 0; i < units.size(); ++i) units[i] = data[i % size];
  if (head.flags & drifting)
    for (size_t i = 0; i < units.size(); i += head.width()) units[i] = static_cast<uint8_t>(units[i] + i / size);
  return units;
}

inline Bytes make_base(const Head& head, const Bytes& units) {
  const unsigned kind = head.flags & base_kind;
  if (kind == 0) return units;
  Bytes base = noise(units.size(), head.seed);
  if (kind == 2) return base;
  for (size_t i = 0; i < base.size(); ++i) {
    const bool change = kind == 4 ? i % 97 == head.seed % 97 : i % head.width() == 0;
    base[i] = static_cast<uint8_t>(units[i] + (change ? base[i] & 15 : 0));
  }
  return base;
}

// The best kernels, or by `choice` any others but the portable ones.
inline const char* other_kernels(uint8_t choice) {
  size_t count = 0;
  while (kernel_names()[count]) ++count;
  return kernel_names()[count == 1 ? 0 : choice ? 1 + choice % (count - 1) : count - 1];
}

struct Outcome {
  int error = -1;  // kind of the DecodeError
  size_t byte = 0;
  Bytes units;

  bool operator==(const Outcome& o) const { return error == o.error && byte == o.byte && units == o.units; }
};

inline Outcome decode(const char* kernels, const Bytes& payload, const Head& head, const uint8_t* base, const uint8_t* copy) {
  require(select_kernels(kernels));
  Outcome o;
  DecodeScratch scratch;
  o.units.assign(head.bytes(), 0);
  try {
    decode_chunk(payload.data(), payload.size(), {o.units.data(), base, copy, head.n, head.dtype, head.digits}, scratch);
  } catch (const DecodeError& e) {
    o.error = e.kind;
    o.byte = e.byte;
    o.units.clear();  // what was written before is of no use to anyone
  }
  return o;
}

// The portable and the fast kernels give the same units, or fail in the same way at the same place.
inline Outcome decode_with_both(const Bytes& payload, const Head& head, const uint8_t* base, const uint8_t* copy) {
  const Bytes exact(payload);  // of its own size, so that a step outside is seen
  const Outcome portable = decode("scalar", exact, head, base, copy);
  require(portable == decode(other_kernels(head.kernels), exact, head, base, copy));
  return portable;
}

// Every finite unit is as near as its request promised, and what is not finite is exact.
inline bool keeps_promise(const Head& head, const Bytes& units, const Bytes& back) {
  if (!head.request() || !kDtypes[head.dtype].is_float()) return true;
  for (size_t i = 0; i < units.size(); i += head.width()) {
    const double was = unit_to_double(&units[i], head.dtype), error = std::fabs(was - unit_to_double(&back[i], head.dtype));
    if (std::memcmp(&units[i], &back[i], head.width()) == 0) continue;
    if (!std::isfinite(was) || (head.levels.max_error > 0 && !(error <= double{head.levels.max_error}))) return false;
  }
  return true;
}

inline Bytes encode(const char* kernels, const Bytes& units, const Head& head, const uint8_t* base) {
  require(select_kernels(kernels));
  EncodeScratch scratch;
  Bytes payload;
  encode_chunk({units.data(), base, head.n, head.dtype, head.digits, head.request(), head.columns, head.first_column},
               payload, scratch);
  return payload;
}

}  // namespace limosa::fuzz
