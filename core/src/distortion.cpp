#include <cmath>
#include <cstring>

#include "limosa/chunk.hpp"

namespace limosa {
namespace {

constexpr size_t kSums = 8;  // partial sums, added up in a fixed order

template <class Load>
Distortion measure(size_t n, Load&& load) {
  double signal[kSums] = {}, noise[kSums] = {}, largest[kSums] = {};
  for (size_t i = 0; i < n; ++i) {
    const auto [x, y] = load(i);
    const double d = x - y;
    if (!std::isfinite(d)) continue;  // finite only if both are, or their difference overflows
    const size_t k = i % kSums;
    signal[k] += x * x;
    noise[k] += d * d;
    largest[k] = std::max(largest[k], std::fabs(d));
  }
  Distortion sum{};
  for (size_t k = 0; k < kSums; ++k) {
    sum.signal += signal[k];
    sum.noise += noise[k];
    sum.largest = std::max(sum.largest, largest[k]);
  }
  return sum;
}

}  // namespace

Distortion distortion(const uint8_t* a, const uint8_t* b, unsigned dtype, size_t n) {
  const Dtype& d = kDtypes[dtype];
  if (d.unit_bits == 32)
    return measure(n, [&](size_t i) {
      float x, y;
      std::memcpy(&x, a + i * 4, 4);
      std::memcpy(&y, b + i * 4, 4);
      return std::pair<double, double>{x, y};
    });
  const size_t size = d.unit_bytes();
  return measure(n, [&](size_t i) {
    return std::pair{unit_to_double(a + i * size, dtype), unit_to_double(b + i * size, dtype)};
  });
}

}  // namespace limosa
