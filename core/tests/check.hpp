// What the C++ tests share: checks, random numbers, errors as values, and a loop over the kernels.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <string>

#include "limosa/bytes.hpp"
#include "limosa/kernels.hpp"

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);         \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

// With a line that says which case of a loop it was.
#define CHECK_CASE(condition, ...)                                                 \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);         \
      std::fprintf(stderr, __VA_ARGS__);                                           \
      std::fprintf(stderr, "\n");                                                  \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

namespace limosa::testing {

// SplitMix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return next() % n; }
  bool chance(uint64_t n) { return below(n) == 0; }  // one in n

  // About normal, mean 0, standard deviation 1.
  double normal() {
    double sum = 0;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(next() >> 11) / 9007199254740992.0;
    return sum - 6;
  }

  Bytes bytes(size_t n) {
    Bytes b(n);
    for (uint8_t& v : b) v = static_cast<uint8_t>(next());
    return b;
  }

 private:
  uint64_t state_;
};

// "" when f returns, else the kind of the DecodeError; any other exception ends the test.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
    return "";
  } catch (const DecodeError& e) {
    return e.kind == DecodeError::truncated ? "truncated" : e.kind == DecodeError::checksum ? "checksum" : "corrupt";
  }
}

// Runs f(name) with each table of kernels that this machine has; the portable one comes first.
template <class F>
void for_each_kernels(F&& f) {
  for (const char* const* name = kernel_names(); *name; ++name) {
    CHECK(select_kernels(*name));
    f(*name);
  }
}

}  // namespace limosa::testing
