#include "limosa/kernels.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "kernels_tables.hpp"

namespace limosa {

extern const Kernels kKernelsScalar;
#if defined(LIMOSA_HAVE_AVX2)
extern const Kernels kKernelsAvx2;
#endif
#if defined(LIMOSA_HAVE_AVX512)
extern const Kernels kKernelsAvx512;
#endif
#if defined(LIMOSA_HAVE_NEON)
extern const Kernels kKernelsNeon;
#endif

size_t BitPlanes::bytes() const {
  size_t total = units * (bits / 8);
  for (unsigned b = 4; b; b >>= 1)
    if (bits & b) total += (units * b + 7) / 8;
  return total;
}

static ShuffleTables make_shuffles() {
  ShuffleTables t;
  for (int mask = 0; mask < 256; ++mask) {
    int used = 0;
    for (int lane = 0; lane < 8; ++lane) {
      t.spread[mask][lane] = static_cast<uint8_t>(used);
      used += mask >> lane & 1;
    }
    int to = 8 - used;
    for (int i = 0; i < 16; ++i) t.compact[mask][i] = 0x80;
    for (int lane = 0; lane < 8; ++lane) {
      if (!(mask >> lane & 1)) continue;
      t.compact[mask][2 * to] = static_cast<uint8_t>(2 * lane);
      t.compact[mask][2 * to + 1] = static_cast<uint8_t>(2 * lane + 1);
      ++to;
    }
  }
  return t;
}

const ShuffleTables kShuffles = make_shuffles();

namespace {

constexpr size_t kMost = 5;

struct Available {
  const Kernels* tables[kMost] = {};
  const char* names[kMost] = {};
  size_t count = 0;

  void add(const Kernels& k) {
    tables[count] = &k;
    names[count++] = k.name;
  }

  Available() {  // worst first
    add(kKernelsScalar);
#if defined(LIMOSA_HAVE_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) add(kKernelsAvx2);
#endif
#if defined(LIMOSA_HAVE_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
        __builtin_cpu_supports("bmi2"))
      add(kKernelsAvx512);
#endif
#if defined(LIMOSA_HAVE_NEON)
    add(kKernelsNeon);
#endif
  }
};

const Available& available() {
  static const Available a;
  return a;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels* find_kernels(const char* name) {
  const Available& a = available();
  for (size_t i = 0; i < a.count; ++i)
    if (std::strcmp(a.names[i], name) == 0) return a.tables[i];
  return nullptr;
}

bool select_kernels(const char* name) {
  const Kernels* k = find_kernels(name);
  if (k) chosen = k;
  return k != nullptr;
}

const char* const* kernel_names() { return available().names; }

const Kernels& kernels() {
  const Kernels* k = chosen.load(std::memory_order_relaxed);
  if (!k) {
    const char* wish = std::getenv("LIMOSA_SIMD");
    k = wish ? find_kernels(wish) : nullptr;
    if (!k) k = available().tables[available().count - 1];
    chosen.store(k, std::memory_order_relaxed);
  }
  return *k;
}

}  // namespace limosa
