// The AVX-512 kernels against the portable ones on machines without AVX-512, through the headers of SIMDe.
// Does nothing where those are not installed (Debian: libsimde-dev).
#include <cstdio>

#if __has_include(<simde/x86/avx512.h>) && defined(__x86_64__) && !defined(__AVX512F__)
#pragma GCC diagnostic ignored "-Wpsabi"  // nothing outside this file is called with such vectors
#include <immintrin.h>  // before SIMDe takes the names of the intrinsics

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include "avx512_shims.hpp"
// The same file under a name of its own, as the library may have it too.
#define kKernelsAvx512 kKernelsAvx512Emulated
#include "../src/kernels_avx512.cpp"

#include "compare_kernels.hpp"
#include "compare_levels.hpp"

int main() {
  using namespace limosa;
  testing::Comparison(*find_kernels("scalar"), kKernelsAvx512Emulated).all();
  testing::LevelsComparison(*find_kernels("scalar"), kKernelsAvx512Emulated).all();
}
#else
int main() { std::puts("skipped: SIMDe is not installed"); }
#endif
