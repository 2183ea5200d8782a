// The arithmetic that encoder and decoder of decimals share (docs/format.md 3.10).
#include <cmath>
#include <cstring>

#include "limosa/chunk.hpp"

namespace limosa {
namespace {

float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
  uint32_t u;
  if (e == 31) {
    u = sign | 0x7f800000u | m << 13;
  } else if (e != 0) {
    u = sign | (e + 112) << 23 | m << 13;
  } else {
    const float v = std::ldexp(static_cast<float>(m), -24);  // exact
    std::memcpy(&u, &v, 4);
    u |= sign;
  }
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

// Round to nearest, ties to even, of v shifted right by `shift` (1 to 31).
uint32_t round_shift(uint32_t v, unsigned shift) {
  const uint32_t kept = v >> shift, rest = v & ((1u << shift) - 1), half = 1u << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1)));
}

uint16_t float_to_half(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  const uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000);
  u &= 0x7fffffff;
  if (u > 0x7f800000) return sign | 0x7e00;
  if (u >= 0x47800000) return sign | 0x7c00;  // 65536 and above
  if (u >= 0x38800000) return static_cast<uint16_t>(sign | round_shift(u - 0x38000000, 13));  // may round up to infinity
  const unsigned e = u >> 23;
  if (e < 102) return sign;  // below half of the smallest subnormal
  return static_cast<uint16_t>(sign | round_shift((u & 0x7fffff) | 0x800000, 126 - e));
}

float bfloat_to_float(uint16_t b) {
  const uint32_t u = static_cast<uint32_t>(b) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

uint16_t float_to_bfloat(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  if ((u & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(u >> 16 | 0x40);
  return static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float unit_to_float(const uint8_t* unit, unsigned dtype) {
  if (dtype == kDtypeF16 || dtype == kDtypeBF16) {
    uint16_t v;
    std::memcpy(&v, unit, 2);
    return dtype == kDtypeF16 ? half_to_float(v) : bfloat_to_float(v);
  }
  float f;
  std::memcpy(&f, unit, 4);
  return f;
}

void float_to_unit(float f, unsigned dtype, uint8_t* unit) {
  if (dtype == kDtypeF16 || dtype == kDtypeBF16) {
    const uint16_t v = dtype == kDtypeF16 ? float_to_half(f) : float_to_bfloat(f);
    std::memcpy(unit, &v, 2);
  } else {
    std::memcpy(unit, &f, 4);
  }
}

}  // namespace

double unit_to_double(const uint8_t* unit, unsigned dtype) {
  if (dtype != kDtypeF64) return unit_to_float(unit, dtype);
  double v;
  std::memcpy(&v, unit, 8);
  return v;
}

void double_to_unit(double v, unsigned dtype, uint8_t* unit) {
  if (dtype == kDtypeF64) std::memcpy(unit, &v, 8);
  else float_to_unit(static_cast<float>(v), dtype, unit);
}

void add_to_unit(double v, const uint8_t* base, unsigned dtype, uint8_t* unit) {
  if (dtype == kDtypeF64) {
    const double sum = unit_to_double(base, dtype) + v;
    std::memcpy(unit, &sum, 8);
    return;
  }
  float rounded = static_cast<float>(v);
  if (dtype == kDtypeF16) rounded = half_to_float(float_to_half(rounded));
  if (dtype == kDtypeBF16) rounded = bfloat_to_float(float_to_bfloat(rounded));
  float_to_unit(unit_to_float(base, dtype) + rounded, dtype, unit);
}

double power_of_ten(int digits) {
  double v = 1;
  for (int i = 0; i < digits; ++i) v *= 10;  // exact up to 10^22
  return v;
}

}  // namespace limosa
