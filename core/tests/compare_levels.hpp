// The kernels of levels, one table against another, and against the conversions that decimals use.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "check.hpp"
#include "limosa/chunk.hpp"

namespace limosa::testing {

class LevelsComparison {
 public:
  LevelsComparison(const Kernels& expected, const Kernels& tested) : a_(expected), b_(tested), random_(23) {}

  void all() {
    for (const unsigned dtype : {0u, 1u, 2u, 3u})
      for (const size_t n : {1u, 7u, 64u, 1000u}) {
        dequantize(dtype, n);
        targets(dtype, n);
      }
    every_half();
    for (const size_t n : {1u, 31u, 64u, 1000u}) integers(n);
    for (const size_t n : {1u, 33u, 500u}) rounding(n);
    for (const unsigned classes : {1u, 3u, 8u})
      for (const size_t groups : {1u, 31u, 33u, 400u}) trellis(classes, groups);
  }

 private:
  Bytes units(unsigned dtype, size_t n) {
    if (random_.chance(2)) return random_.bytes(n * kDtypes[dtype].unit_bytes());
    Bytes b(n * kDtypes[dtype].unit_bytes());
    for (size_t i = 0; i < n; ++i) double_to_unit(random_.normal(), dtype, b.data() + i * kDtypes[dtype].unit_bytes());
    return b;
  }

  void dequantize(unsigned dtype, size_t n) {
    const Dtype& d = kDtypes[dtype];
    for (const double step : {1.0, 0x1.ffep-12, 0x1p-126, 0x1.8p120}) {
      const Bytes base = units(dtype, n);
      std::vector<int32_t> rho(n);
      for (int32_t& r : rho) r = static_cast<int32_t>(random_.below(1u << 30) >> random_.below(31)) - 3;
      for (const uint8_t* from : {static_cast<const uint8_t*>(nullptr), base.data()}) {
        Bytes x(base.size()), y(base.size());
        a_.dequantize(rho.data(), step, from, d.unit_bits, d.mantissa_bits, n, x.data());
        b_.dequantize(rho.data(), step, from, d.unit_bits, d.mantissa_bits, n, y.data());
        CHECK_CASE(x == y, "%s dtype %u", b_.name, dtype);
        for (size_t i = 0; i < n; ++i) check_unit(rho[i] * step, rho[i] == 0, from, dtype, x, i);
      }
    }
  }

  // One unit against the scalar conversions.
  void check_unit(double v, bool zero, const uint8_t* base, unsigned dtype, const Bytes& x, size_t i) {
    const size_t size = kDtypes[dtype].unit_bytes();
    uint8_t expected[8];
    double_to_unit(base ? unit_to_double(base + i * size, dtype) + v : v, dtype, expected);
    if (base && zero) std::memcpy(expected, base + i * size, size);
    if (std::isnan(unit_to_double(expected, dtype))) return;  // of a NaN any
    CHECK_CASE(std::memcmp(expected, x.data() + i * size, size) == 0, "dtype %u, %g", dtype, v);
  }

  void targets(unsigned dtype, size_t n) {
    const Dtype& d = kDtypes[dtype];
    const Bytes u = units(dtype, n), base = units(dtype, n);
    for (const uint8_t* from : {static_cast<const uint8_t*>(nullptr), base.data()}) {
      std::vector<float> x(n), y(n);
      const bool finite = a_.level_targets(u.data(), from, d.unit_bits, d.mantissa_bits, n, x.data());
      CHECK(b_.level_targets(u.data(), from, d.unit_bits, d.mantissa_bits, n, y.data()) == finite);
      for (size_t i = 0; i < n; ++i) {
        const double b = from ? unit_to_double(from + i * d.unit_bytes(), dtype) : 0;
        const auto expected = static_cast<float>(unit_to_double(u.data() + i * d.unit_bytes(), dtype) - b);
        CHECK(x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i])));
        CHECK(x[i] == expected || std::isnan(expected));
      }
    }
  }

  // All units of 16 bits as targets and back.
  void every_half() {
    for (const unsigned dtype : {2u, 3u}) {
      const Dtype& d = kDtypes[dtype];
      Bytes u(2 * 65536), back(u.size());
      for (unsigned i = 0; i < 65536; ++i) std::memcpy(u.data() + 2 * i, &i, 2);
      std::vector<float> t(65536);
      b_.level_targets(u.data(), nullptr, 16, d.mantissa_bits, t.size(), t.data());
      for (unsigned i = 0; i < 65536; ++i) {
        const auto expected = static_cast<float>(unit_to_double(u.data() + 2 * i, dtype));
        CHECK(std::memcmp(&expected, &t[i], 4) == 0 || std::isnan(expected));
      }
    }
  }

  void integers(size_t n) {
    for (const unsigned bits : {3u, 20u, 29u, 32u}) {
      std::vector<uint32_t> z(n);
      for (uint32_t& v : z) v = static_cast<uint32_t>(random_.below(uint64_t{1} << bits) >> random_.below(bits));
      Bytes quantizers(n);
      for (uint8_t& q : quantizers) q = static_cast<uint8_t>(random_.below(2));
      for (const uint8_t* q : {static_cast<const uint8_t*>(nullptr), static_cast<const uint8_t*>(quantizers.data())}) {
        std::vector<int32_t> x(n), y(n);
        const bool fits = a_.level_integers(z.data(), q, n, x.data());
        CHECK(b_.level_integers(z.data(), q, n, y.data()) == fits);
        CHECK(!fits || x == y);
        for (size_t i = 0; fits && i < n; ++i) {
          const int64_t level = (z[i] >> 1) + (z[i] & 1), rho = q ? (level ? 2 * level - q[i] : 0) : level;
          CHECK(x[i] == (z[i] & 1 ? -rho : rho));
        }
      }
    }
  }

  std::vector<float> floats(size_t n, double scale) {
    std::vector<float> t(n);
    for (float& v : t) v = static_cast<float>(random_.normal() * (random_.chance(20) ? 1e6 * scale : scale));
    return t;
  }

  void rounding(size_t n) {
    for (const float scale : {1.0f, 64.0f, 0.01f}) {
      const std::vector<float> t = floats(n, 3);
      std::vector<int32_t> x(n), y(n);
      a_.to_fixed(t.data(), scale, n, x.data());
      b_.to_fixed(t.data(), scale, n, y.data());
      CHECK(x == y);
      std::vector<uint32_t> u(n), v(n);
      a_.quantize(t.data(), scale, 0.6f, 0.45f, n, u.data());
      b_.quantize(t.data(), scale, 0.6f, 0.45f, n, v.data());
      CHECK(u == v);
    }
  }

  void trellis(unsigned classes, size_t groups) {
    std::vector<int32_t> rates(2 * kRateStride * classes);
    for (int32_t& r : rates) r = static_cast<int32_t>(random_.below(30000));
    for (size_t i = 0; i < rates.size(); i += kRateStride) rates[i] = 1 << 18;
    for (const size_t lanes : {kLanes, 1u}) {
      const size_t n = groups * lanes;
      std::vector<int32_t> x(n);
      for (int32_t& v : x) v = static_cast<int32_t>(random_.normal() * (random_.chance(40) ? 1e8 : 300));
      Bytes c(n);
      for (uint8_t& v : c) v = static_cast<uint8_t>(random_.below(classes));
      const TrellisInput in{x.data(), classes > 1 ? c.data() : nullptr, classes, rates.data(), random_.chance(2) ? 64 : 1 << 30,
                            random_.chance(2), groups};
      CHECK(run(a_, in, lanes) == run(b_, in, lanes));
    }
  }

  // All that comes out.
  static std::vector<int64_t> run(const Kernels& k, const TrellisInput& in, size_t lanes) {
    const size_t n = in.groups * lanes, states = kTrellisStates * lanes;
    std::vector<int32_t> costs(states);
    for (size_t i = lanes; i < states; ++i) costs[i] = 1 << 24;
    std::vector<uint16_t> decisions(n);
    std::vector<uint32_t> values(n);
    Bytes contexts(n), end(lanes, 0);
    k.trellis_forward[lanes == 1](in, costs.data(), decisions.data());
    k.trellis_back[lanes == 1](in, decisions.data(), end.data(), values.data(), contexts.data());
    std::vector<int64_t> all(costs.begin(), costs.end());
    for (const uint8_t s : end) CHECK(s == 0);  // every path starts there
    all.insert(all.end(), decisions.begin(), decisions.end());
    all.insert(all.end(), values.begin(), values.end());
    all.insert(all.end(), contexts.begin(), contexts.end());
    return all;
  }

  const Kernels &a_, &b_;
  Random random_;
};

}  // namespace limosa::testing
