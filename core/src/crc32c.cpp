#include "limosa/crc32c.hpp"

#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace limosa {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected
// Three independent lanes of this many bytes hide the three cycles that one CRC step takes.
constexpr size_t kLane = 2048;

struct Tables {
  uint32_t slice[8][256];  // slicing by 8
  uint32_t skip[4][256];   // a CRC moved over kLane zero bytes, byte by byte of the CRC

  Tables() {
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c >> 1) ^ ((c & 1) ? kPolynomial : 0);
      slice[0][i] = c;
    }
    for (int t = 1; t < 8; ++t)
      for (int i = 0; i < 256; ++i)
        slice[t][i] = (slice[t - 1][i] >> 8) ^ slice[0][slice[t - 1][i] & 255];
    uint32_t moved[32];  // the map is linear: 32 single bits give it whole
    for (int bit = 0; bit < 32; ++bit) {
      uint32_t c = 1u << bit;
      for (size_t k = 0; k < kLane; ++k) c = (c >> 8) ^ slice[0][c & 255];
      moved[bit] = c;
    }
    for (int b = 0; b < 4; ++b)
      for (int i = 0; i < 256; ++i) {
        uint32_t c = 0;
        for (int bit = 0; bit < 8; ++bit)
          if (i >> bit & 1) c ^= moved[8 * b + bit];
        skip[b][i] = c;
      }
  }
};

const Tables& tables() {
  static const Tables t;
  return t;
}

uint32_t portable(const uint8_t* p, size_t n, uint32_t c) {
  const auto& s = tables().slice;
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t v;
    std::memcpy(&v, p, 8);
    v ^= c;
    c = 0;
    for (int i = 0; i < 8; ++i) c ^= s[7 - i][(v >> (8 * i)) & 255];
  }
  for (; n; ++p, --n) c = (c >> 8) ^ s[0][(c ^ *p) & 255];
  return c;
}

#if defined(__x86_64__) || defined(__ARM_FEATURE_CRC32)

#if defined(__x86_64__)
#define LIMOSA_CRC_TARGET __attribute__((target("sse4.2")))
LIMOSA_CRC_TARGET inline uint64_t step8(uint64_t c, const uint8_t* p) {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return _mm_crc32_u64(c, v);
}
LIMOSA_CRC_TARGET inline uint32_t step1(uint32_t c, uint8_t v) { return _mm_crc32_u8(c, v); }
bool have_hardware() { return __builtin_cpu_supports("sse4.2"); }
#else
#define LIMOSA_CRC_TARGET
inline uint64_t step8(uint64_t c, const uint8_t* p) {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return __crc32cd(static_cast<uint32_t>(c), v);
}
inline uint32_t step1(uint32_t c, uint8_t v) { return __crc32cb(c, v); }
bool have_hardware() { return true; }
#endif

uint32_t skip_lane(uint32_t c) {
  const auto& k = tables().skip;
  return k[0][c & 255] ^ k[1][c >> 8 & 255] ^ k[2][c >> 16 & 255] ^ k[3][c >> 24];
}

LIMOSA_CRC_TARGET uint32_t hardware(const uint8_t* p, size_t n, uint32_t c) {
  uint64_t a = c;
  for (; n >= 3 * kLane; p += 3 * kLane, n -= 3 * kLane) {
    uint64_t b = 0, d = 0;
    for (size_t i = 0; i < kLane; i += 8) {
      a = step8(a, p + i);
      b = step8(b, p + kLane + i);
      d = step8(d, p + 2 * kLane + i);
    }
    a = skip_lane(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b);
    a = skip_lane(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(d);
  }
  for (; n >= 8; p += 8, n -= 8) a = step8(a, p);
  c = static_cast<uint32_t>(a);
  for (; n; ++p, --n) c = step1(c, *p);
  return c;
}
#else
bool have_hardware() { return false; }
uint32_t hardware(const uint8_t* p, size_t n, uint32_t c) { return portable(p, n, c); }
#endif

}  // namespace

uint32_t crc32c_portable(const uint8_t* data, size_t size, uint32_t crc) {
  return ~portable(data, size, ~crc);
}

uint32_t crc32c(const uint8_t* data, size_t size, uint32_t crc) {
  static const bool fast = have_hardware();
  return fast ? ~hardware(data, size, ~crc) : crc32c_portable(data, size, crc);
}

}  // namespace limosa
