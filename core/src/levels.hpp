// What encoder and decoder of levels share (docs/format.md 3.11).
#pragma once
#include "classes.hpp"
#include "limosa/chunk.hpp"

namespace limosa {

enum LevelsFlag : uint8_t { dependent_levels = 1, scaled_rows = 2, adaptive_levels = 16 };
enum class ClassSource : uint8_t { none = 0, rows_and_columns = 1, base_exponent = 2 };

constexpr unsigned kScaleUnit = 128;  // the scale of a row that has no effect

// The step of a row in binary64; exact.
inline double row_step(double step, uint8_t scale) {
  constexpr uint32_t significands[8] = {2048, 2233, 2435, 2656, 2896, 3158, 3444, 3756};
  const int exponent = scale / 8 - 16 - 11;
  const double power = exponent < 0 ? 1.0 / static_cast<double>(1u << -exponent) : static_cast<double>(1u << exponent);
  return step * significands[scale % 8] * power;
}

// Trellises of a dependent block.
inline size_t segment_count(size_t n, bool adaptive) { return n >= 16384 && !adaptive ? kLanes : 1; }

// Between the order of the units and that of the stream: place p is unit (p mod S) * len + floor(p / S).
// One tile of `groups` groups of S, the first being `first`.
template <class T>
void deal(const T* units, size_t segments, size_t length, size_t first, size_t groups, T* stream) {
  for (size_t g = 0; g < groups; ++g)
    for (size_t s = 0; s < segments; ++s) stream[g * segments + s] = units[s * length + first + g];
}
template <class T>
void collect(const T* stream, size_t segments, size_t length, size_t first, size_t groups, T* units) {
  for (size_t s = 0; s < segments; ++s)
    for (size_t g = 0; g < groups; ++g) units[s * length + first + g] = stream[g * segments + s];
}

// Levels to units, row by row if `scales` is not null.
inline void dequantize_rows(const Rows& rows, const int32_t* rho, double step, const uint8_t* scales,
                            const uint8_t* base, unsigned dtype, uint8_t* units) {
  const Dtype& d = kDtypes[dtype];
  const auto run = [&](double row, size_t at, size_t n) {
    kernels().dequantize(rho + at, row, base ? base + at * d.unit_bytes() : nullptr, d.unit_bits, d.mantissa_bits, n,
                         units + at * d.unit_bytes());
  };
  if (!scales) return run(step, 0, rows.n);
  rows.each([&](size_t row, size_t, size_t at, size_t n) { run(row_step(step, scales[row]), at, n); });
}

inline bool is_negative(const uint8_t* unit, size_t size) { return unit[size - 1] >> 7; }

}  // namespace limosa
