// Adaptive levels: round trips over shapes and magnitudes, known bytes, size against the entropy, damage.
#include <cmath>
#include <map>

#include "check.hpp"
#include "limosa/context_coder.hpp"
#include "limosa/crc32c.hpp"

using namespace limosa;
using testing::Random;
using testing::error_of;

namespace {

using Levels = std::vector<int32_t>;
constexpr int32_t kMost = (1 << 29) - 1;

struct Shape {
  size_t columns, first_column;
  bool dependent;
};

Bytes encode(const Levels& levels, Shape s) {
  static EncodeScratch scratch;  // kept, to see that nothing is left over from the call before
  Bytes out;
  encode_adaptive(out, levels.data(), levels.size(), s.columns, s.first_column, s.dependent, scratch);
  return out;
}

Levels decode(const uint8_t* data, size_t size, size_t n, Shape s) {
  static DecodeScratch scratch;
  Levels levels(n, kMost);
  Reader reader(data, size);
  decode_adaptive(reader, levels.data(), n, s.columns, s.first_column, s.dependent, scratch);
  if (reader.left()) reader.corrupt("bytes left");
  return levels;
}

Bytes round_trip(const Levels& levels, Shape s) {
  const Bytes out = encode(levels, s);
  CHECK_CASE(decode(out.data(), out.size(), levels.size(), s) == levels, "n %zu columns %zu first %zu dependent %d",
             levels.size(), s.columns, s.first_column, s.dependent);
  return out;
}

// Rows and columns of different scale.
Levels matrix(Random& random, size_t n, size_t columns, double scale) {
  std::vector<double> column(std::min(columns, n) + 1);
  for (double& v : column) v = std::exp2(random.normal() / 2);
  Levels levels(n);
  double row = 1;
  for (size_t i = 0; i < n; ++i) {
    if (i % columns == 0) row = std::exp2(random.normal() / 2);
    levels[i] = static_cast<int32_t>(std::lround(random.normal() * scale * row * column[i % columns]));
  }
  return levels;
}

double entropy(const Levels& levels) {
  std::map<int32_t, double> counts;
  for (const int32_t q : levels) ++counts[q];
  double bits = 0;
  for (const auto& [q, count] : counts) bits -= count * std::log2(count / static_cast<double>(levels.size()));
  return bits;
}

void shapes() {
  Random random(1);
  for (const size_t n : {1, 2, 3, 7, 100, 1000})
    for (const size_t columns : {size_t{1}, size_t{2}, size_t{3}, size_t{9}, size_t{99}, size_t{100}, size_t{101},
                                 size_t{5000}, SIZE_MAX / 2, SIZE_MAX})
      for (const size_t first : {size_t{0}, columns / 2, columns - 1})
        for (const bool dependent : {false, true})
          for (const double scale : {0.1, 2.0, 300.0})
            round_trip(matrix(random, n, columns, scale), {columns, first, dependent});
}

void magnitudes() {
  Random random(2);
  for (const bool dependent : {false, true}) {
    const Shape s{50, 7, dependent};
    round_trip(Levels(1000, 0), s);
    round_trip(Levels(1000, kMost), s);
    round_trip(Levels(1000, -kMost), s);
    for (int i = 0; i < 200; ++i) {
      Levels levels(1 + random.below(300));
      const unsigned bits = 1 + static_cast<unsigned>(random.below(29));
      for (int32_t& q : levels) {
        q = static_cast<int32_t>(random.next() >> (64 - 1 - random.below(bits)) & kMost);
        if (random.chance(2)) q = -q;
      }
      round_trip(levels, s);
    }
    Levels jumps(5000);  // what the averages and the mixer expect least
    for (size_t i = 0; i < jumps.size(); ++i) jumps[i] = random.chance(2) ? 0 : random.chance(2) ? kMost : -kMost;
    round_trip(jumps, s);
    for (size_t i = 0; i < jumps.size(); ++i) jumps[i] = i / 1000 % 2 ? (i % 2 ? kMost : -kMost) : 0;
    round_trip(jumps, s);
  }
}

// The code is part of the format: the same bytes on every machine.
void known_bytes() {
  Random random(3);
  const auto check = [&](bool dependent, double scale, uint32_t expected) {
    Levels levels(20000);
    for (int32_t& q : levels) {
      q = static_cast<int32_t>(random.below(1 + static_cast<uint64_t>(scale)) * random.below(16) / 8);
      if (random.chance(2)) q = -q;
    }
    const Bytes out = round_trip(levels, {77, 5, dependent});
    const uint32_t found = crc32c(out.data(), out.size());
    CHECK_CASE(found == expected, "0x%08x", found);
  };
  check(false, 1, 0x4c4de9f8);
  check(true, 3, 0xb4be45f4);
  check(false, 40, 0xe05e952b);
  check(true, 100000, 0x724d5fa9);
}

void sizes() {
  Random random(4);
  for (const double scale : {0.2, 1.0, 8.0, 60.0}) {
    Levels levels = matrix(random, 200000, 500, scale);
    const double bits = 8.0 * static_cast<double>(round_trip(levels, {500, 0, false}).size());
    CHECK_CASE(bits < 0.98 * entropy(levels), "scale %g: %g of %g bits", scale, bits, entropy(levels));
  }
  CHECK(round_trip(Levels(262144, 0), {512, 0, false}).size() < 64);
  CHECK(round_trip({0}, {1, 0, false}).size() <= 4);
}

void damage() {
  Random random(5);
  const Shape s{40, 3, true};
  const Levels levels = matrix(random, 2000, 40, 3);
  const Bytes good = encode(levels, s);
  for (size_t size = 0; size < good.size(); ++size)
    CHECK(error_of([&] { decode(good.data(), size, levels.size(), s); }) == "truncated");
  for (const size_t n : {levels.size() - 100, levels.size() + 100})
    CHECK(error_of([&] { decode(good.data(), good.size(), n, s); }) == "corrupt");
  for (int i = 0; i < 500; ++i) {
    Bytes bad = good;
    bad[2 + random.below(bad.size() - 2)] ^= static_cast<uint8_t>(1 + random.below(255));
    error_of([&] { decode(bad.data(), bad.size(), levels.size(), s); });
    bad = random.bytes(2 + random.below(100));
    error_of([&] { decode(bad.data(), bad.size(), 1 + random.below(3000), s); });
    bad.insert(bad.begin(), {static_cast<uint8_t>(bad.size() + 1), static_cast<uint8_t>(random.below(216))});
    error_of([&] { decode(bad.data(), bad.size(), 1 + random.below(3000), s); });
  }
  const auto corrupt = [&](Bytes bytes) {
    return error_of([&] { decode(bytes.data(), bytes.size(), 10, s); }) == "corrupt";
  };
  CHECK(corrupt({0}));
  CHECK(corrupt({1, 40}));
  CHECK(corrupt({2, 216, 0}));                        // scale
  CHECK(corrupt({5, 40, 255, 255, 255, 255}));        // beyond the range
  CHECK(corrupt({2, 40, 0}));                         // large levels, for which bytes are missing
  CHECK(corrupt({9, 40, 255, 0, 0, 0, 0, 0, 0, 0}));  // zeros, for which there are too many
}

}  // namespace

int main() {
  shapes();
  magnitudes();
  known_bytes();
  sizes();
  damage();
}
