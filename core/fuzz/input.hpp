// What the fuzz targets share: how the first bytes of an input choose the case.
#pragma once
#include <cstdlib>
#include <cstring>

#include "limosa/chunk.hpp"

namespace limosa::fuzz {

constexpr size_t kHead = 8;
constexpr size_t kMostUnits = 4096;

// dtype, units (2), flags, digits, kernels, two bytes of seed
struct Head {
  unsigned dtype;
  size_t n;
  uint8_t flags;
  int digits;  // -1 to 18
  uint8_t kernels;
  uint32_t seed;

  explicit Head(const uint8_t* p)
      : dtype(p[0] % kDtypeCount),
        n(1 + (p[1] | p[2] << 8) % kMostUnits),
        flags(p[3]),
        digits(p[4] % (kMaxDigits + 2) - 1),
        kernels(p[5]),
        seed(p[6] | uint32_t{p[7]} << 8) {}

  size_t bytes() const { return n * kDtypes[dtype].unit_bytes(); }
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

// The best kernels, or by `choice` any others but the portable ones.
inline const char* other_kernels(uint8_t choice) {
  size_t count = 0;
  while (kernel_names()[count]) ++count;
  return kernel_names()[count == 1 ? 0 : choice ? 1 + choice % (count - 1) : count - 1];
}

}  // namespace limosa::fuzz
