// Levels there and back: dtypes, rows, bases, promises of error; the same bytes by all kernels; then damage.
#include <algorithm>
#include <cmath>

#include "check.hpp"
#include "limosa/chunk.hpp"

using namespace limosa;
using testing::Random;
using testing::error_of;
using testing::for_each_kernels;

namespace {

constexpr unsigned kF64 = 0, kF32 = 1, kC64 = 17;

struct Case {
  unsigned dtype;
  size_t n;
  LevelsRequest request;
  Bytes units, base;
  size_t columns = 0, first_column = 0;

  size_t width() const { return kDtypes[dtype].unit_bytes(); }
  const uint8_t* given_base() const { return base.empty() ? nullptr : base.data(); }
};

// Rows and columns of their own magnitude.
Bytes weights(Random& random, unsigned dtype, size_t n, size_t columns, double scale) {
  Bytes b(n * kDtypes[dtype].unit_bytes());
  for (size_t i = 0; i < n; ++i) {
    const size_t row = columns ? i / columns : 0, column = columns ? i % columns : 0;
    const double v = random.normal() * scale * (1 + static_cast<double>(row % 7)) / (1 + static_cast<double>(column % 3));
    double_to_unit(v, dtype, b.data() + i * kDtypes[dtype].unit_bytes());
  }
  return b;
}

void add_specials(Random& random, unsigned dtype, Bytes& b) {
  const size_t size = kDtypes[dtype].unit_bytes(), n = b.size() / size;
  for (const double v : {std::nan(""), HUGE_VAL, -HUGE_VAL, 3e38, -6.5e4, 1e-300, -0.0})
    double_to_unit(v, dtype, b.data() + random.below(n) * size);
}

Bytes encode(const Case& c) {
  EncodeScratch scratch;
  Bytes out;
  encode_chunk({c.units.data(), c.given_base(), c.n, c.dtype, -1, &c.request, c.columns, c.first_column}, out, scratch);
  return out;
}

Bytes decode(const Bytes& payload, const Case& c) {
  DecodeScratch scratch;
  Bytes units(c.units.size(), 0xcc);
  decode_chunk(payload.data(), payload.size(), {units.data(), c.given_base(), nullptr, c.n, c.dtype, -1}, scratch);
  return units;
}

void check_near(const Case& c, const Bytes& out) {
  for (size_t i = 0; i < c.n; ++i) {
    const uint8_t *was = c.units.data() + i * c.width(), *is = out.data() + i * c.width();
    const double in = unit_to_double(was, c.dtype), error = std::fabs(in - unit_to_double(is, c.dtype));
    if (!std::isfinite(in)) {
      CHECK(std::memcmp(was, is, c.width()) == 0);
      continue;
    }
    if (c.request.max_error > 0) CHECK_CASE(error <= double{c.request.max_error}, "%g off by %g", in, error);
    // The trellis stays within two quantizers' spacing, and rounding to the dtype adds its own.
    const double relative = std::ldexp(4.0, -static_cast<int>(std::min(kDtypes[c.dtype].mantissa_bits, 23u)));
    const double b = c.base.empty() ? 0 : unit_to_double(c.base.data() + i * c.width(), c.dtype);
    const double allowed = 4.1 * c.request.step + relative * (std::fabs(in) + (std::isfinite(b) ? std::fabs(b) : 0));
    if (!c.request.signs_only && !c.request.row_scales) CHECK_CASE(error <= allowed, "%g off by %g", in, error);
  }
}

Bytes round_trip(const Case& c) {
  Bytes payload, first;
  for_each_kernels([&](const char* name) {
    const Bytes p = encode(c);
    if (payload.empty()) payload = p;
    CHECK_CASE(p == payload, "%s: dtype %u n %zu", name, c.dtype, c.n);
    const Bytes out = decode(p, c);
    if (first.empty()) {
      first = out;
      check_near(c, out);
    }
    CHECK_CASE(out == first, "%s: dtype %u n %zu", name, c.dtype, c.n);
    CHECK(p.size() <= c.units.size() + 10 + c.width());
  });
  return payload;
}

void damage(Random& random, const Case& c, const Bytes& payload) {
  const size_t step = 1 + payload.size() / 30;
  for (size_t size = 0; size < payload.size(); size += step)
    CHECK(error_of([&] { decode(Bytes(payload.begin(), payload.begin() + static_cast<long>(size)), c); }) != "");
  for (unsigned i = 0; i < 16; ++i) {
    Bytes bad = payload;
    const size_t bit = random.below(8 * (i % 2 ? bad.size() : std::min<size_t>(bad.size(), 40)));
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
      CHECK_CASE(error == expected && out == units, "%s: dtype %u n %zu bit %zu", name, c.dtype, c.n, bit);
    });
  }
}

std::vector<LevelsRequest> requests() {
  return {
      {0.0101f, true, 0.4f, false, false, false, 0},
      {0.02f, false, 0.1f, false, false, false, 0},
      {0.0001f, true, 0.4f, false, false, false, 0},  // levels beyond the tokens of their own
      {0.099f, true, 0.2f, false, false, false, 0.1f},
      {0.0101f, true, 0.4f, true, false, false, 0},
      {0.0004f, true, 0.4f, true, false, false, 0},
      {0.02f, false, 0.1f, true, false, false, 0.03f},
      {0.0199f, false, 0, false, false, false, 0.01f},
      {0.05f, true, 0.4f, false, false, true, 0},
      {1, false, 0, false, true, false, 0},
  };
}

void all_cases() {
  for (const unsigned dtype : {kF64, kF32, kDtypeF16, kDtypeBF16, kC64})
    for (const size_t n : {1u, 2u, 31u, 300u, 3000u, 16384u, 20001u}) {
      Random random(n * 20 + dtype);
      for (const size_t columns : {size_t{0}, size_t{1}, size_t{25}, 3 * n})
        for (const LevelsRequest& request : requests()) {
          if (n > 300 && (request.adaptive ? dtype != kF32 || columns != 25 : !random.chance(3))) continue;  // for the time
          Case c{dtype, n, request, weights(random, dtype, n, columns, 0.1), {}, columns, columns ? 7 * n % columns : 0};
          if (random.chance(3)) add_specials(random, dtype, c.units);
          const Bytes payload = round_trip(c);
          if (n < 3000 || random.chance(4)) damage(random, c, payload);
          c.base = c.units;
          c.units = weights(random, dtype, n, columns, 0.03);
          for (size_t i = 0; i < n; ++i) {
            const size_t at = i * c.width();
            const double sum = unit_to_double(c.units.data() + at, dtype) + unit_to_double(c.base.data() + at, dtype);
            double_to_unit(sum, dtype, c.units.data() + at);
          }
          const Bytes against = round_trip(c);
          if (n < 3000) damage(random, c, against);
        }
    }
}

// What the modes are for: fewer bits than plain rounding at the same error, and rows that differ are told apart.
void efficient() {
  Random random(5);
  constexpr size_t n = 65536;
  const auto bits_and_error = [&](const Case& c) {
    const Bytes payload = encode(c);
    const Bytes back = decode(payload, c);
    const Distortion d = distortion(c.units.data(), back.data(), c.dtype, c.n);
    return std::pair{static_cast<double>(payload.size()) * 8 / n, 10 * std::log10(d.signal / d.noise)};
  };
  const Case plain{kF32, n, {0.1f, false, 0.1f, false, false, false, 0}, weights(random, kF32, n, 256, 0.1), {}, 256};
  Case trellis = plain;
  trellis.request.dependent = true;
  trellis.request.lambda = 0.4f;
  trellis.request.step = 0.06f;
  Case flat = plain;
  flat.columns = 0;
  const auto [plain_bits, plain_snr] = bits_and_error(plain);
  const auto [trellis_bits, trellis_snr] = bits_and_error(trellis);
  const auto [flat_bits, flat_snr] = bits_and_error(flat);
  CHECK_CASE(trellis_snr - plain_snr > 6.02 * (trellis_bits - plain_bits) + 0.5, "%.3f bits %.2f dB, trellis %.3f bits %.2f dB",
             plain_bits, plain_snr, trellis_bits, trellis_snr);
  CHECK_CASE(plain_bits < flat_bits - 0.15, "%.3f %.3f", plain_bits, flat_bits);
  Case same = plain;
  same.base = same.units;
  CHECK(encode(same).size() == 2);  // base copy
}

void base_palette() {
  Bytes payload, base(400), units(400);
  for (size_t i = 0; i < 100; ++i) {
    const float v = static_cast<float>(i);
    std::memcpy(base.data() + 4 * i, &v, 4);
  }
  append_block_header(payload, Mode::base_palette, 0);
  append_varint(payload, 1);  // an exception: unit 3 is 7
  append_varint(payload, 3);
  append(payload, 7.0f);
  payload.push_back(1);
  append(payload, 0.0f);
  append(payload, 0.5f);
  payload.push_back(0);  // raw
  for (unsigned i = 0; i < 100; ++i) payload.push_back(i % 2);
  DecodeScratch scratch;
  const ChunkOutput out{units.data(), base.data(), nullptr, 100, kF32, -1};
  decode_chunk(payload.data(), payload.size(), out, scratch);
  for (size_t i = 0; i < 100; ++i) {
    float v;
    std::memcpy(&v, units.data() + 4 * i, 4);
    CHECK(v == (i == 3 ? 7.0f : static_cast<float>(i) + (i % 2 ? 0.5f : 0.0f)));
  }
  const ChunkOutput none{units.data(), nullptr, nullptr, 100, kF32, -1};
  CHECK(error_of([&] { decode_chunk(payload.data(), payload.size(), none, scratch); }) == "corrupt");
}

// Heads that promise more than there is.
void hostile() {
  Random random(3);
  for (unsigned i = 0; i < 6000; ++i) {
    Case c{static_cast<unsigned>(random.below(4)), 1 + random.below(600), {}, {}, {}};
    c.units.resize(c.n * c.width());
    if (random.chance(2)) c.base = random.bytes(c.units.size());
    Bytes payload;
    append_block_header(payload, static_cast<Mode>(15 + random.below(3)), 0);
    payload.push_back(static_cast<uint8_t>(random.below(32)));
    const uint8_t step[3] = {0, 0, static_cast<uint8_t>(0x3c + random.below(2))};
    append_bytes(payload, step, 3);
    append_varint(payload, random.chance(4) ? random.below(4) : 0);
    const uint64_t columns = random.chance(2) ? 1 + random.below(2 * c.n) : random.next() >> random.below(64);
    append_varint(payload, columns);
    append_varint(payload, random.chance(2) ? 0 : random.next() % (columns + 1));
    for (unsigned k = 0; k < 40; ++k) payload.push_back(static_cast<uint8_t>(random.chance(2) ? random.below(4) : random.next()));
    error_of([&] { decode(payload, c); });
  }
}

}  // namespace

int main() {
  all_cases();
  efficient();
  base_palette();
  hostile();
}
