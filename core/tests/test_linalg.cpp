// Exact linear algebra under the sanitizers, and every instruction set against plain C++.
#include "limosa/linalg.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "check.hpp"
#include "limosa/crc32c.hpp"
#include "limosa/kernels.hpp"

using namespace limosa;
using limosa::testing::Random;

namespace {

struct Svd {
  std::vector<double> u, s, vt;
};

Svd decompose(const std::vector<double>& a, size_t o, size_t i) {
  const size_t m = std::min(o, i);
  Svd r{std::vector<double>(o * m), std::vector<double>(m), std::vector<double>(m * i)};
  std::vector<double> scratch(svd_scratch(o, i));
  svd(a.data(), o, i, r.u.data(), r.s.data(), r.vt.data(), scratch.data());
  return r;
}

double largest_error(const Svd& r, const std::vector<double>& a, size_t o, size_t i) {
  const size_t m = std::min(o, i);
  double worst = 0;
  for (size_t p = 0; p < o; ++p)
    for (size_t q = 0; q < i; ++q) {
      double sum = 0;
      for (size_t k = 0; k < m; ++k) sum += r.u[p * m + k] * r.s[k] * r.vt[k * i + q];
      worst = std::max(worst, std::fabs(sum - a[p * i + q]));
    }
  return worst;
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(double));
}

void test_decompositions() {
  Random random(1);
  const size_t shapes[][2] = {{1, 1}, {1, 20}, {20, 1}, {7, 7}, {5, 40}, {40, 5}, {24, 65}, {65, 24}};
  for (const auto& shape : shapes) {
    for (int kind = 0; kind < 4; ++kind) {
      const size_t o = shape[0], i = shape[1];
      std::vector<double> a(o * i);
      for (double& x : a) x = kind == 1 ? 0 : random.normal();
      if (kind == 2)  // of low rank, with a dead row
        for (size_t p = 0; p < o; ++p)
          for (size_t q = 0; q < i; ++q) a[p * i + q] = p == 1 ? 0 : (static_cast<double>(p) + 1) * a[q];
      if (kind == 3)
        for (double& x : a) x = std::ldexp(x, -1040);  // subnormal, most of them
      CHECK(select_kernels("scalar"));
      const Svd plain = decompose(a, o, i);
      CHECK_CASE(largest_error(plain, a, o, i) < 1e-11 * std::max(1.0, plain.s[0]), "%zu x %zu, kind %d", o, i, kind);
      for (const char* const* name = kernel_names(); *name; ++name) {
        CHECK(select_kernels(*name));
        const Svd other = decompose(a, o, i);
        CHECK_CASE(same(other.u, plain.u) && same(other.s, plain.s) && same(other.vt, plain.vt), "%s, %zu x %zu", *name,
                   o, i);
      }
    }
  }
}

// Rows of magnitudes that a dead filter of binary32 has, equal rows, and many equal singular values.
void test_hard_matrices() {
  Random random(2);
  constexpr size_t o = 24, i = 50;
  for (int kind = 0; kind < 4; ++kind) {
    std::vector<double> a(o * i);
    for (size_t p = 0; p < o; ++p)
      for (size_t q = 0; q < i; ++q) {
        const double x = random.normal();
        double& y = a[p * i + q];
        if (kind == 0) y = std::ldexp(x, p % 2 ? -149 : 0);
        if (kind == 1) y = std::ldexp(x, -static_cast<int>(6 * p));
        if (kind == 2) y = p % 3 ? a[(p - 1) * i + q] : x;
        if (kind == 3) y = p == q ? 1 : 0;
      }
    const Svd r = decompose(a, o, i);
    CHECK_CASE(largest_error(r, a, o, i) < 1e-11 * r.s[0], "kind %d", kind);
    for (const std::vector<double>* part : {&r.u, &r.s, &r.vt})
      CHECK(std::all_of(part->begin(), part->end(), [](double x) { return std::isfinite(x); }));
  }
}

// What every compiler and processor gives: this program runs on 64-bit ARM, too.
void test_golden_bits() {
  const size_t shapes[][2] = {{7, 7}, {6, 20}, {20, 6}, {40, 90}};
  uint32_t crc = 0;
  const auto add = [&crc](const std::vector<double>& part) {
    crc = crc32c(reinterpret_cast<const uint8_t*>(part.data()), part.size() * sizeof(double), crc);
  };
  for (const bool equal_rows : {false, true}) {  // whose squares come out below 0
    for (const auto& shape : shapes) {
      const size_t o = shape[0], i = shape[1];
      std::vector<double> a(o * i);
      for (uint64_t k = 0; k < a.size(); ++k)
        a[k] = (static_cast<double>((k * 7919 + k * k * 104729) % 2003) - 1001) / 512;
      for (size_t p = 1; equal_rows && p < o; p += 2) std::copy_n(&a[(p - 1) * i], i, &a[p * i]);
      const Svd r = decompose(a, o, i);
      for (const std::vector<double>* part : {&r.u, &r.s, &r.vt}) add(*part);
      std::vector<double> row(i);
      product_row(r.u.data(), a.data(), std::min(o, i), i, row.data());
      add(row);
    }
    if (!equal_rows) CHECK_CASE(crc == 0x3359a88c, "%08x", crc);
  }
  CHECK_CASE(crc == 0x596bd752, "%08x", crc);
}

void test_rounding() {
  const double one = 1.0, tie = 1.0 + 0x1p-11, above = 1.0 + 0x1p-11 + 0x1p-40;
  const double addends[] = {one, tie, above, 65519.999, 65520.0, 0x1p-25, 0x1.8p-25, 0.0};
  const uint16_t expected[] = {0x3c00, 0x3c00, 0x3c01, 0x7bff, 0x7c00, 0x0000, 0x0001, 0x0000};
  uint16_t units[8];
  add_rounded(nullptr, addends, 8, 2, 10, reinterpret_cast<uint8_t*>(units));
  for (int k = 0; k < 8; ++k) CHECK_CASE(units[k] == expected[k], "F16 %d: %x", k, units[k]);

  const double wide[] = {1.0, 1.0 + 0x1p-8, 1.0 + 0x1p-8 + 0x1p-50, 1.0 + 3 * 0x1p-8, 1e39, -1e39};
  const uint16_t narrow[] = {0x3f80, 0x3f80, 0x3f81, 0x3f82, 0x7f80, 0xff80};
  add_rounded(nullptr, wide, 6, 2, 7, reinterpret_cast<uint8_t*>(units));
  for (int k = 0; k < 6; ++k) CHECK_CASE(units[k] == narrow[k], "BF16 %d: %x", k, units[k]);

  const uint16_t special[] = {0x7e00, 0x7c00, 0x8000, 0x3c00};  // NaN, infinity, -0, 1
  const double moves[] = {1.0, 1.0, 0.0, 1.0};
  add_rounded(reinterpret_cast<const uint8_t*>(special), moves, 4, 2, 10, reinterpret_cast<uint8_t*>(units));
  CHECK(units[0] == 0x7e00 && units[1] == 0x7c00 && units[2] == 0x8000 && units[3] == 0x4000);
}

void test_nan_has_one_form() {
  const double nans[] = {std::nan(""), -std::nan(""), std::nan("0xfffffffffffff")};
  const unsigned widths[] = {8, 4, 2, 2}, mantissas[] = {52, 23, 10, 7};
  const uint64_t expected[] = {0x7ff8000000000000, 0x7fc00000, 0x7e00, 0x7fc0};
  for (int d = 0; d < 4; ++d) {
    uint8_t units[24];
    add_rounded(nullptr, nans, 3, widths[d], mantissas[d], units);
    for (int k = 0; k < 3; ++k) {
      uint64_t unit = 0;
      std::memcpy(&unit, units + static_cast<size_t>(k) * widths[d], widths[d]);
      CHECK_CASE(unit == expected[d], "dtype %d, %d: %llx", d, k, static_cast<unsigned long long>(unit));
    }
  }
}

void test_product() {
  const double left[] = {1, 1, 1}, right[] = {1, 0x1p53, -0x1p53};
  double out = -1;
  product_row(left, right, 3, 1, &out);
  CHECK(out == 0);  // in order: the 1 is lost
  product_row(left, right, 0, 1, &out);
  CHECK(out == 0);
}

}  // namespace

int main() {
  test_decompositions();
  test_hard_matrices();
  test_golden_bits();
  test_rounding();
  test_nan_has_one_form();
  test_product();
  return 0;
}
