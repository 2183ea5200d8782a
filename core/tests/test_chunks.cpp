// Chunks there and back: every dtype, kinds of data, bases and digits; then prefixes and flipped bits.
#include <algorithm>
#include <cmath>

#include "check.hpp"
#include "limosa/chunk.hpp"

using namespace limosa;
using testing::Random;
using testing::error_of;
using testing::for_each_kernels;

namespace {

struct Case {
  const char* name;
  unsigned dtype;
  Bytes units, base;  // base may be empty
  int digits = -1;
  size_t columns = 0, first_column = 0;

  size_t n() const { return units.size() / kDtypes[dtype].unit_bytes(); }
};

void put(Bytes& b, size_t i, size_t size, uint64_t v) { std::memcpy(b.data() + i * size, &v, size); }
uint64_t get(const Bytes& b, size_t i, size_t size) {
  uint64_t v = 0;
  std::memcpy(&v, b.data() + i * size, size);
  return v;
}

Bytes normal(Random& random, unsigned dtype, size_t n, double scale) {
  const Dtype& d = kDtypes[dtype];
  Bytes b(n * d.unit_bytes());
  for (size_t i = 0; i < n; ++i) {
    const double v = random.normal() * scale;
    if (d.is_float()) double_to_unit(v, dtype, b.data() + i * d.unit_bytes());
    else put(b, i, d.unit_bytes(), static_cast<uint64_t>(static_cast<int64_t>(v * 200)));
  }
  return b;
}

// NaN, infinities, denormals, -0, extreme exponents.
void add_specials(Random& random, unsigned dtype, Bytes& b) {
  const Dtype& d = kDtypes[dtype];
  const size_t size = d.unit_bytes();
  const uint64_t sign = uint64_t{1} << (d.unit_bits - 1);
  const uint64_t infinity = ((uint64_t{1} << d.exponent_bits) - 1) << d.mantissa_bits;
  const uint64_t specials[] = {0, sign, infinity, sign | infinity, infinity | 1, sign | infinity | 5, 1, sign | 1,
                               (uint64_t{1} << d.mantissa_bits) - 1, infinity - 1, sign | (infinity - 1), sign - 1, ~uint64_t{0}};
  const size_t n = b.size() / size;
  for (const uint64_t v : specials) put(b, random.below(n), size, v);
  put(b, 0, size, specials[random.below(13)]);
  put(b, n - 1, size, specials[random.below(13)]);
}

std::vector<std::pair<const char*, Bytes>> data(Random& random, unsigned dtype, size_t n) {
  const size_t size = kDtypes[dtype].unit_bytes();
  std::vector<std::pair<const char*, Bytes>> all;
  all.emplace_back("normal", normal(random, dtype, n, 0.02));
  all.emplace_back("noise", random.bytes(n * size));
  all.emplace_back("zeros", Bytes(n * size, 0));
  all.emplace_back("constant", Bytes(n * size, 0xa5));
  Bytes b = normal(random, dtype, n, 1);
  add_specials(random, dtype, b);
  all.emplace_back("specials", b);
  b = normal(random, dtype, n, 1);
  for (size_t i = 0; i < n; ++i)
    if (!random.chance(5)) put(b, i, size, 0);
  all.emplace_back("sparse", b);
  for (size_t i = 0; i < n; ++i) put(b, i, size, i % 9 ? 0 : 0x3c);
  all.emplace_back("sparse palette", b);
  const Bytes values = random.bytes(200 * size);
  for (const size_t count : {2u, 3u, 200u}) {
    for (size_t i = 0; i < n; ++i) put(b, i, size, get(values, random.below(count), size));
    all.emplace_back("palette", b);
  }
  b = normal(random, dtype, n, 3);
  for (size_t i = 0; i < n; ++i) put(b, i, size, get(b, i, size) >> 3 << 3);
  all.emplace_back("trailing zeros", b);
  if (size > 2) {  // segments
    b = normal(random, dtype, n, 3);
    for (size_t i = 0; i < n / 2; ++i) put(b, i, size, get(b, i, size) >> 16 << 16);
    all.emplace_back("half rounded", b);
  }
  return all;
}

Bytes shifted(Random& random, const Bytes& units, size_t size, unsigned kind) {
  Bytes b = units;
  const size_t n = b.size() / size;
  for (size_t i = 0; i < n; ++i) {
    const uint64_t u = get(b, i, size);
    if (kind == 0) put(b, i, size, u + random.below(7) - 3);                    // near
    else if (kind == 1) put(b, i, size, random.chance(60) ? u + random.below(300) : u);  // nearly equal
    else if (kind == 2) put(b, i, size, random.next());                         // unrelated
    else if (kind == 3 && i + 1 == n) put(b, i, size, ~u);                      // one changed
  }
  return b;
}

std::vector<Case> cases(size_t n, unsigned dtype) {
  Random random(100 * n + dtype);
  std::vector<Case> all;
  const Dtype& d = kDtypes[dtype];
  for (auto& [name, units] : data(random, dtype, n)) {
    all.push_back({name, dtype, units, {}});
    for (unsigned kind = 0; kind < 5; ++kind) all.push_back({name, dtype, units, shifted(random, units, d.unit_bytes(), kind)});
    if (!d.is_float()) continue;
    for (const int digits : {0, 3, 6, 18}) {
      all.push_back({name, dtype, units, {}, digits});
      all.push_back({name, dtype, units, shifted(random, units, d.unit_bytes(), 2), digits});
      all.push_back({name, dtype, units, normal(random, dtype, n, 1), digits});
    }
  }
  return all;
}

Bytes encode(const Case& c) {
  EncodeScratch scratch;
  Bytes out;
  encode_chunk({c.units.data(), c.base.empty() ? nullptr : c.base.data(), c.n(), c.dtype, c.digits, nullptr, c.columns,
                c.first_column},
               out, scratch);
  return out;
}

Bytes decode(const Bytes& payload, const Case& c) {
  DecodeScratch scratch;
  Bytes units(c.units.size(), 0xcc);
  decode_chunk(payload.data(), payload.size(),
               {units.data(), c.base.empty() ? nullptr : c.base.data(), nullptr, c.n(), c.dtype, c.digits}, scratch);
  return units;
}

// With digits: what is not finite is exact, the rest is near.
void check_near(const Case& c, const Bytes& out) {
  const Dtype& d = kDtypes[c.dtype];
  const size_t size = d.unit_bytes();
  const double step = std::pow(10.0, -c.digits), relative = std::ldexp(1.0, -static_cast<int>(d.mantissa_bits));
  const double smallest = c.dtype == kDtypeF16 ? std::ldexp(1.0, -24) : 1e-38;
  for (size_t i = 0; i < c.n(); ++i) {
    const double in = unit_to_double(c.units.data() + i * size, c.dtype), back = unit_to_double(out.data() + i * size, c.dtype);
    if (!std::isfinite(in)) {
      CHECK(get(c.units, i, size) == get(out, i, size));
      continue;
    }
    double base = c.base.empty() ? 0 : unit_to_double(c.base.data() + i * size, c.dtype);
    if (!std::isfinite(base)) base = 0;
    const double allowed = step * (1 + 1e-9) + 4 * relative * (std::fabs(in) + std::fabs(base)) + smallest;
    CHECK_CASE(!(std::fabs(in - back) > allowed) || std::isinf(allowed), "%s dtype %u digits %d: %g, found %g, base %g", c.name,
               c.dtype, c.digits, in, back, base);
  }
}

Bytes round_trip(const Case& c) {
  Bytes payload, first;
  for_each_kernels([&](const char* kernels) {
    const Bytes p = encode(c);
    if (payload.empty()) payload = p;
    CHECK_CASE(p == payload, "%s: %s dtype %u n %zu", kernels, c.name, c.dtype, c.n());
    const Bytes out = decode(p, c);
    if (c.digits < 0) {
      CHECK_CASE(out == c.units, "%s: %s dtype %u n %zu", kernels, c.name, c.dtype, c.n());
      CHECK(p.size() <= c.units.size() + 10 + kDtypes[c.dtype].unit_bytes());
      return;
    }
    if (first.empty()) {
      first = out;
      check_near(c, out);
    }
    CHECK(out == first);
  });
  return payload;
}

// Blocks add up to the chunk.
void inspected(const Case& c, const Bytes& payload) {
  DecodeScratch scratch;
  Bytes units(c.units.size());
  std::vector<BlockInfo> blocks;
  inspect_chunk(payload.data(), payload.size(),
                {units.data(), c.base.empty() ? nullptr : c.base.data(), nullptr, c.n(), c.dtype, c.digits}, scratch, blocks);
  size_t n = 0, bytes = 0;
  for (const BlockInfo& b : blocks) {
    n += b.units;
    bytes += b.bytes;
  }
  CHECK(n == c.n() && bytes == payload.size());
}

void prefixes(const Case& c, const Bytes& payload, size_t step) {
  for (size_t size = 0; size < payload.size(); size += step) {
    const Bytes prefix(payload.begin(), payload.begin() + static_cast<long>(size));
    CHECK_CASE(error_of([&] { decode(prefix, c); }) != "", "%s dtype %u: %zu of %zu bytes", c.name, c.dtype, size, payload.size());
  }
  Bytes longer = payload;
  longer.push_back(0);
  CHECK(error_of([&] { decode(longer, c); }) != "");
}

// A flipped bit gives an error or other units; which of them does not depend on the kernels.
void flips(Random& random, const Case& c, const Bytes& payload, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    Bytes bad = payload;
    const size_t bit = random.below(8 * (i % 2 ? bad.size() : std::min<size_t>(bad.size(), 50)));
    bad[bit / 8] = static_cast<uint8_t>(bad[bit / 8] ^ 1 << bit % 8);
    std::string expected;
    Bytes units;
    for_each_kernels([&](const char* name) {
      Bytes out;
      const std::string error = error_of([&] { out = decode(bad, c); });
      if (std::string(name) == "scalar") {
        expected = error;
        units = out;
      }
      CHECK_CASE(error == expected && out == units, "%s: %s dtype %u bit %zu", name, c.name, c.dtype, bit);
    });
  }
}

// A payload from another place, and pure noise behind every mode.
void hostile(Random& random) {
  for (unsigned i = 0; i < 4000; ++i) {
    Case c{"hostile", static_cast<unsigned>(random.below(kDtypeCount)), {}, {}};
    const size_t n = 1 + random.below(600);
    c.units.resize(n * kDtypes[c.dtype].unit_bytes());
    if (random.chance(2)) c.base = random.bytes(c.units.size());
    c.digits = static_cast<int>(random.below(20)) - 1;
    Bytes payload = random.bytes(1 + random.below(300));
    payload[0] = static_cast<uint8_t>(random.below(19));
    if (payload.size() > 1) payload[1] = 0;
    for (size_t k = 2; k < std::min<size_t>(payload.size(), 12); ++k)
      if (random.chance(2)) payload[k] = static_cast<uint8_t>(random.below(4));
    error_of([&] { decode(payload, c); });
  }
}

// Rows and columns of their own magnitude, in a few places cut into blocks or with escapes.
void classes(Random& random, unsigned dtype) {
  const size_t size = kDtypes[dtype].unit_bytes();
  for (const size_t n : {4095u, 4096u, 9000u, 30001u, 70000u})
    for (const size_t columns : {size_t{1}, size_t{9}, size_t{100}, n / 3, n, size_t{300000}}) {
      Case c{"classes", dtype, Bytes(n * size), {}, -1, columns, 7 * n % columns};
      for (size_t i = 0; i < n; ++i) {
        const size_t place = c.first_column + i, row = place / columns, column = place % columns;
        double_to_unit(std::ldexp(random.normal(), -static_cast<int>(row % 3 * 2 + column % 2)), dtype, &c.units[i * size]);
      }
      if (random.chance(2)) add_specials(random, dtype, c.units);
      if (size > 2 && random.chance(2))
        for (size_t i = 0; i < n / 2; ++i) put(c.units, i, size, get(c.units, i, size) >> 8 << 8);
      const Bytes payload = round_trip(c);
      Case plain = c;
      plain.columns = plain.first_column = 0;
      const size_t without = encode(plain).size();
      if (columns == 9 || columns == 100) CHECK_CASE(n < 9000 || payload.size() < without, "dtype %u n %zu: %zu", dtype, n, payload.size());
      else CHECK(payload.size() <= without);
      inspected(c, payload);
      prefixes(c, payload, 1 + payload.size() / 4);
      flips(random, c, payload, n < 10000 ? 24 : 3);
    }
}

// Activations: nothing negative, many zeros, a ceiling, and places where a row says nothing but its bias.
void repeats(Random& random, unsigned dtype) {
  const size_t size = kDtypes[dtype].unit_bytes();
  const uint64_t sign = uint64_t{1} << (kDtypes[dtype].unit_bits - 1);
  for (const size_t n : {40u, 4096u, 30001u})
    for (const size_t columns : {size_t{1}, size_t{49}, n / 3, size_t{300000}}) {
      Case c{"repeats", dtype, normal(random, dtype, n, 1), {}, -1, columns, 7 * n % columns};
      const uint64_t ceiling = get(normal(random, dtype, 1, 1), 0, size) & (sign - 1);
      bool biased = false;  // for some units
      for (size_t i = 0; i < n; ++i) {
        if (random.chance(6)) biased = !biased;
        const uint64_t u = get(c.units, i, size), bias = 77 + (c.first_column + i) / columns;
        put(c.units, i, size, biased ? bias : u & sign ? 0 : random.chance(20) ? ceiling : u);
      }
      const Bytes payload = round_trip(c);
      if (n > 4000 && columns > 40) {
        CHECK_CASE(payload[0] == static_cast<uint8_t>(Mode::repeats), "dtype %u n %zu columns %zu: mode %u", dtype, n, columns, payload[0]);
        Case plain = c;
        plain.columns = plain.first_column = 0;
        if (columns < n / 4) CHECK(payload.size() < encode(plain).size());
      }
      inspected(c, payload);
      prefixes(c, payload, 1 + payload.size() / (n < 1000 ? payload.size() : 9));
      flips(random, c, payload, n < 10000 ? 24 : 3);
    }
}

void copies() {
  Random random(9);
  const Bytes earlier = random.bytes(400);
  Bytes units(400), payload;
  append_block_header(payload, Mode::tensor_copy, 0);
  append_varint(payload, 300);
  DecodeScratch scratch;
  decode_chunk(payload.data(), payload.size(), {units.data(), nullptr, earlier.data(), 100, 1, -1}, scratch);
  CHECK(units == earlier);
  const ChunkOutput none{units.data(), nullptr, nullptr, 100, 1, -1};
  CHECK(error_of([&] { decode_chunk(payload.data(), payload.size(), none, scratch); }) == "corrupt");
}

}  // namespace

int main() {
  Random random(7);
  for (unsigned dtype = 0; dtype < kDtypeCount; ++dtype) {
    // The dtypes of one width without fields are alike.
    const bool representative = kDtypes[dtype].is_float() || dtype == 8 || dtype == 9 || dtype == 10 || dtype == 15;
    for (const size_t n : {1u, 2u, 15u, 33u, 300u, 1000u}) {
      if (!representative && n != 300) continue;
      for (const Case& c : cases(n, dtype)) {
        const Bytes payload = round_trip(c);
        inspected(c, payload);
        if (n != 15 && n != 300) continue;
        prefixes(c, payload, n < 300 ? 1 : 1 + payload.size() / 40);
        flips(random, c, payload, 12);
      }
    }
    if (!representative) continue;
    if (kDtypes[dtype].is_float()) {
      classes(random, dtype);
      repeats(random, dtype);
    }
    for (const Case& c : cases(20001, dtype)) {
      if (c.digits >= 0 && c.digits != 3) continue;
      const Bytes payload = round_trip(c);
      prefixes(c, payload, 1 + payload.size() / 3);
      flips(random, c, payload, 2);
    }
  }
  hostile(random);
  copies();
}
