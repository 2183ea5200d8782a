// The plain loops of levels (docs/format.md 3.11): between units, targets and integers. Part of kernels_loops.hpp.

inline uint32_t bits_of(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}
inline float float_of(uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}

// One kind of unit: its value, and the unit of a value after rounding to binary32 (F64: none).
struct UnitF64 {
  using Bits = uint64_t;
  static constexpr Bits kInfinity = uint64_t{0x7ff} << 52;
  static double value(Bits u) {
    double v;
    __builtin_memcpy(&v, &u, 8);
    return v;
  }
  static Bits unit(double v) {
    Bits u;
    __builtin_memcpy(&u, &v, 8);
    return u;
  }
};

struct UnitF32 {
  using Bits = uint32_t;
  static constexpr Bits kInfinity = 0x7f800000;
  static double value(Bits u) { return float_of(u); }
  static Bits unit(double v) { return bits_of(static_cast<float>(v)); }
};

struct UnitBF16 {
  using Bits = uint16_t;
  static constexpr Bits kInfinity = 0x7f80;
  static double value(Bits u) { return float_of(static_cast<uint32_t>(u) << 16); }
  static Bits unit(double v) {
    const uint32_t u = bits_of(static_cast<float>(v));
    const uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
    return static_cast<Bits>((u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
  }
};

struct UnitF16 {
  using Bits = uint16_t;
  static constexpr Bits kInfinity = 0x7c00;
  static double value(Bits h) {
    const uint32_t m = h & 1023, e = h >> 10 & 31, sign = static_cast<uint32_t>(h & 0x8000) << 16;
    const uint32_t normal = (h & 0x7fffu) << 13, bias = e == 31 ? 224u << 23 : 112u << 23;
    const uint32_t small = bits_of(static_cast<float>(static_cast<int32_t>(m)) * 0x1p-24f);
    return float_of(sign | (e == 0 ? small : normal + bias));
  }
  static Bits unit(double v) {
    const uint32_t u = bits_of(static_cast<float>(v)), a = u & 0x7fffffff, sign = u >> 16 & 0x8000;
    const uint32_t normal = (a - 0x38000000u + 0xfff + (a >> 13 & 1)) >> 13;  // may round up to infinity
    // The last place of 1/2 is that of the subnormals of binary16, so the addition rounds to them.
    const uint32_t small = bits_of(float_of(a < 0x38800000 ? a : 0) + 0.5f) - 0x3f000000u;
    const uint32_t finite = a < 0x38800000 ? small : normal;
    return static_cast<Bits>(sign | (a > 0x7f800000 ? 0x7e00 : a >= 0x47800000 ? 0x7c00 : finite));
  }
};

// Calls f with the kind of unit.
template <class F>
auto with_unit(unsigned width, unsigned mantissa, F&& f) {
  if (width == 64) return f(UnitF64{});
  if (width == 32) return f(UnitF32{});
  if (mantissa == 7) return f(UnitBF16{});
  return f(UnitF16{});
}

template <bool Dependent>
bool level_integers_of(const uint32_t* values, const uint8_t* quantizers, size_t n, int32_t* rho) {
  uint32_t large = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t z = values[i], magnitude = (z >> 1) + (z & 1), some = magnitude != 0;
    const uint32_t r = Dependent ? 2 * magnitude - (quantizers[i] & some) : magnitude;
    large |= magnitude | r;
    rho[i] = static_cast<int32_t>((r ^ (0u - (z & 1))) + (z & 1));
  }
  return large >> 29 == 0;
}

bool level_integers(const uint32_t* values, const uint8_t* quantizers, size_t n, int32_t* rho) {
  return quantizers ? level_integers_of<true>(values, quantizers, n, rho)
                    : level_integers_of<false>(values, nullptr, n, rho);
}

template <class Unit>
void dequantize_of(const int32_t* rho, double step, const uint8_t* base, size_t n, uint8_t* units) {
  using Bits = typename Unit::Bits;
  if (!base) {
    for (size_t i = 0; i < n; ++i) store(units + i * sizeof(Bits), Unit::unit(rho[i] * step));
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    const Bits b = load<Bits>(base + i * sizeof(Bits));
    const Bits moved = Unit::unit(Unit::value(b) + rho[i] * step);
    // What is not finite stays as it is: a sum would have a NaN's payload from the machine.
    const bool kept = (rho[i] == 0) | ((b & Unit::kInfinity) == Unit::kInfinity);
    store(units + i * sizeof(Bits), kept ? b : moved);
  }
}

void dequantize(const int32_t* rho, double step, const uint8_t* base, unsigned width, unsigned mantissa, size_t n,
                uint8_t* units) {
  with_unit(width, mantissa, [&](auto unit) { dequantize_of<decltype(unit)>(rho, step, base, n, units); });
}

template <class Unit>
bool level_targets_of(const uint8_t* units, const uint8_t* base, size_t n, float* targets) {
  using Bits = typename Unit::Bits;
  uint32_t infinite = 0;
  for (size_t i = 0; i < n; ++i) {
    double v = Unit::value(load<Bits>(units + i * sizeof(Bits)));
    if (base) v -= Unit::value(load<Bits>(base + i * sizeof(Bits)));
    targets[i] = static_cast<float>(v);
    infinite |= (bits_of(targets[i]) & 0x7fffffff) >= 0x7f800000;
  }
  return infinite == 0;
}

bool level_targets(const uint8_t* units, const uint8_t* base, unsigned width, unsigned mantissa, size_t n, float* targets) {
  return with_unit(width, mantissa,
                   [&](auto unit) { return level_targets_of<decltype(unit)>(units, base, n, targets); });
}

void to_fixed(const float* targets, float scale, size_t n, int32_t* fixed) {
  for (size_t i = 0; i < n; ++i) {
    const float v = targets[i] * scale, half = float_of((bits_of(v) & 0x80000000u) | bits_of(0.5f));
    fixed[i] = static_cast<int32_t>(v + half);
  }
}

void quantize(const float* targets, float scale, float zero, float offset, size_t n, uint32_t* values) {
  for (size_t i = 0; i < n; ++i) {
    const float v = targets[i] * scale, a = float_of(bits_of(v) & 0x7fffffff);
    const float raised = a + offset;  // outside of the choice, where the compiler would not vectorise it
    const uint32_t q = static_cast<uint32_t>(static_cast<int32_t>(raised)) & (0u - static_cast<uint32_t>(a >= zero));
    values[i] = 2 * q - (q != 0 ? bits_of(v) >> 31 : 0u);
  }
}
