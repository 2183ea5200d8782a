#include "limosa/linalg.hpp"

#include <cmath>
#include <cstring>

#include "limosa/kernels.hpp"

namespace limosa {
namespace {

#include "linalg_loops.hpp"

// To binary32 with a last bit that tells of what was lost, so that the next rounding is the only one.
float round_to_odd(double value) {
  float f = static_cast<float>(value);
  if (static_cast<double>(f) == value) return f;
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  const bool away = std::fabs(static_cast<double>(f)) > std::fabs(value);
  if (away) --bits;  // truncated: an infinity becomes the largest number
  bits |= 1;
  std::memcpy(&f, &bits, 4);
  return f;
}

uint16_t bf16_of(double value) {
  const float f = round_to_odd(value);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Scaling by powers of two is exact in double for all that F16 can hold; rounding is by adding and taking away.
uint16_t f16_of(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(value);
  if (size >= 65520.0) return static_cast<uint16_t>(sign | 0x7c00);
  int exponent = -14;
  if (size >= 0x1p-14) exponent = std::ilogb(size);
  const double spacing = std::ldexp(1.0, exponent - 10);
  const double units = std::nearbyint(size / spacing);  // ties to even, the default mode
  const auto whole = static_cast<unsigned>(units);      // 1024 … 2048, or less for subnormals
  return static_cast<uint16_t>(sign | (whole + static_cast<unsigned>(exponent + 14) * 1024));
}

template <typename Unit>
double as_double(Unit unit, unsigned mantissa);

template <>
double as_double(uint64_t unit, unsigned) {
  double value;
  std::memcpy(&value, &unit, 8);
  return value;
}

template <>
double as_double(uint32_t unit, unsigned) {
  float value;
  std::memcpy(&value, &unit, 4);
  return value;
}

template <>
double as_double(uint16_t unit, unsigned mantissa) {
  if (mantissa == 7) return as_double(static_cast<uint32_t>(unit) << 16, 23);
  const unsigned exponent = unit >> 10 & 31, fraction = unit & 1023;
  double size = exponent == 31  ? (fraction ? NAN : INFINITY)
                : exponent == 0 ? fraction * 0x1p-24
                                : std::ldexp(1024.0 + fraction, static_cast<int>(exponent) - 25);
  return unit & 0x8000 ? -size : size;
}

template <typename Unit>
Unit rounded(double value, unsigned mantissa);

template <>
uint64_t rounded(double value, unsigned) {
  uint64_t unit;
  std::memcpy(&unit, &value, 8);
  return unit;
}

template <>
uint32_t rounded(double value, unsigned) {
  const auto single = static_cast<float>(value);
  uint32_t unit;
  std::memcpy(&unit, &single, 4);
  return unit;
}

template <>
uint16_t rounded(double value, unsigned mantissa) {
  return mantissa == 7 ? bf16_of(value) : f16_of(value);
}

// Of no sign and no payload: those of a sum differ between processors and with the order of its operands.
template <typename Unit>
constexpr Unit quiet_nan(unsigned mantissa) {
  return static_cast<Unit>(((uint64_t{1} << (8 * sizeof(Unit) - mantissa)) - 1) << (mantissa - 1));
}

template <typename Unit>
void add_units(const uint8_t* base, const double* addend, size_t n, unsigned mantissa, uint8_t* units) {
  for (size_t i = 0; i < n; ++i) {
    Unit unit = 0;
    if (base) std::memcpy(&unit, base + i * sizeof(Unit), sizeof(Unit));
    const double old = as_double<Unit>(unit, mantissa);
    if (addend[i] != 0.0 && std::isfinite(old)) {
      const double sum = old + addend[i];
      unit = std::isnan(sum) ? quiet_nan<Unit>(mantissa) : rounded<Unit>(sum, mantissa);
    }
    std::memcpy(units + i * sizeof(Unit), &unit, sizeof(Unit));
  }
}

}  // namespace

extern const LinalgKernels kLinalgScalar;
const LinalgKernels kLinalgScalar = {"scalar", dot, subtract, add_rows, rotate};
#if defined(LIMOSA_HAVE_AVX2)
extern const LinalgKernels kLinalgAvx2;
#endif
#if defined(LIMOSA_HAVE_AVX512)
extern const LinalgKernels kLinalgAvx512;
#endif

const LinalgKernels& linalg_kernels() {
  const char* name = kernels().name;
#if defined(LIMOSA_HAVE_AVX512)
  if (!std::strcmp(name, kLinalgAvx512.name)) return kLinalgAvx512;
#endif
#if defined(LIMOSA_HAVE_AVX2)
  if (!std::strcmp(name, kLinalgAvx2.name)) return kLinalgAvx2;
#endif
  (void)name;
  return kLinalgScalar;
}

void product_row(const double* left, const double* right, size_t k, size_t columns, double* out) {
  for (size_t j = 0; j < columns; ++j) out[j] = 0.0;
  linalg_kernels().add_rows(out, right, left, k, columns);
}

void add_rounded(const uint8_t* base, const double* addend, size_t n, unsigned width, unsigned mantissa, uint8_t* units) {
  if (width == 8) return add_units<uint64_t>(base, addend, n, mantissa, units);
  if (width == 4) return add_units<uint32_t>(base, addend, n, mantissa, units);
  add_units<uint16_t>(base, addend, n, mantissa, units);
}

}  // namespace limosa
