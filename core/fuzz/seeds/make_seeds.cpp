// Writes the seeds of the fuzz targets (scripts/fuzz seeds): one of each kind of block that the encoder makes.
// Wanted again after a change of the format; FOLDER is core/fuzz/corpus.
#include <cstdio>
#include <fstream>
#include <string>

#include "../input.hpp"

using namespace limosa;

namespace {

enum class Kind { weights, constant, noise, palette, sparse, escapes, rounded, near, few, planes, equal, rows, repeats };

struct Seed {
  const char* name;
  unsigned dtype;
  size_t n;
  bool base;
  int digits;
  Kind kind;
  uint16_t seed;
  uint8_t levels = 0;  // how, as in fuzz::Head; 128 alone: no levels, but rows
};

constexpr unsigned kF64 = 0, kF32 = 1, kF16 = 2, kBF16 = 3, kI64 = 8, kI32 = 9, kU8 = 15;

constexpr Seed kSeeds[] = {
    {"fields-bf16", kBF16, 400, false, -1, Kind::weights, 5},
    {"fields-f16", kF16, 300, false, -1, Kind::weights, 5},
    {"fields-f32", kF32, 150, false, -1, Kind::weights, 5},
    {"fields-f64", kF64, 60, false, -1, Kind::weights, 5},
    {"fields-escapes", kBF16, 400, false, -1, Kind::escapes, 5},
    {"fields-rounded", kF32, 200, false, -1, Kind::rounded, 5},
    {"fields-classed", kBF16, 4096, false, -1, Kind::rows, 65, 0x80},
    {"constant", kF32, 500, false, -1, Kind::constant, 5},
    {"raw", kF32, 20, false, -1, Kind::noise, 5},
    {"planes-u8", kU8, 400, false, -1, Kind::weights, 5},
    {"planes-i64", kI64, 100, false, -1, Kind::weights, 5},
    {"palette", kF32, 600, false, -1, Kind::palette, 5},
    {"palette-32-lanes", kF32, fuzz::kLong + 64, false, -1, Kind::constant, 77},
    {"zero-mask", kBF16, 600, false, -1, Kind::sparse, 5},
    {"repeats", kF32, 1200, false, -1, Kind::repeats, 65, 0x80},
    {"fields-unsigned", kF32, 300, false, -1, Kind::constant, 78},
    {"steps-bf16", kBF16, 500, true, -1, Kind::near, 5},
    {"steps-f32", kF32, 200, true, -1, Kind::near, 5},
    {"steps-f64", kF64, 200, true, -1, Kind::near, 5},
    {"steps-32-lanes", kBF16, fuzz::kLong + 32, true, -1, Kind::few, 5},
    {"sparse", kF32, fuzz::kLong + 3000, true, -1, Kind::few, 79},
    {"base-planes", kI32, 300, true, -1, Kind::planes, 5},
    {"base-copy", kF32, 300, true, -1, Kind::equal, 5},
    {"decimal-f32", kF32, 400, false, 2, Kind::weights, 5},
    {"decimal-f64", kF64, 100, false, 6, Kind::weights, 5},
    {"base-decimal", kBF16, 300, true, 1, Kind::weights, 2},
    {"levels", kF32, 600, false, -1, Kind::weights, 5, 0x90},
    {"levels-dependent", kF32, 600, false, -1, Kind::weights, 5, 0x91},
    {"levels-adaptive", kBF16, 400, false, -1, Kind::weights, 5, 0x93},
    {"levels-signs", kF32, 400, false, -1, Kind::weights, 5, 0x94},
    {"levels-scales", kF16, 400, false, -1, Kind::weights, 5, 0x99},
    {"levels-bound", kF64, 300, false, -1, Kind::escapes, 5, 0xd1},
    {"levels-32-lanes", kF32, fuzz::kLong + 40, false, -1, Kind::weights, 5, 0x91},
    {"base-levels", kF32, 900, true, -1, Kind::weights, 6, 0x91},
};

struct Random {
  uint64_t x = 88172645463325252u;
  uint64_t next() {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
  }
  uint64_t below(uint64_t n) { return (next() >> 8) % n; }
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(next() >> 11) / 9007199254740992.0;
    return sum;
  }
};

void weight(Random& random, unsigned dtype, uint8_t* unit) {
  const double v = random.normal() * 0.02;
  if (kDtypes[dtype].is_float()) return double_to_unit(v, dtype, unit);
  const auto whole = static_cast<int64_t>(v * 1000);
  std::memcpy(unit, &whole, kDtypes[dtype].unit_bytes());
}

uint64_t unit_of(const Seed& s, Random& random, uint64_t base, size_t i) {
  uint64_t u = 0;
  const auto w = reinterpret_cast<uint8_t*>(&u);
  switch (s.kind) {
    case Kind::weights: weight(random, s.dtype, w); break;
    case Kind::rows: double_to_unit(std::ldexp(random.normal(), -static_cast<int>(i / 66 % 3 * 2 + i % 66 % 2)), s.dtype, w); break;
    case Kind::repeats:
      if (random.below(3)) u = random.below(2) ? 0x3f000000 + i / 66 : random.below(2) ? 0x40c00000 : 0x3f000000 + random.below(1 << 22);
      break;
    case Kind::constant: if (s.seed == 78) return 0x3f000000 + random.below(1 << 22); u = 0x41414141 + (s.seed == 77 && random.below(40) == 0); break;
    case Kind::noise: u = random.next(); break;
    case Kind::palette: u = 0x3f800000 + 77 * random.below(9); break;
    case Kind::sparse: if (random.below(6) == 0) weight(random, s.dtype, w); break;
    case Kind::escapes: weight(random, s.dtype, w); if (random.below(20) == 0) u = random.next(); break;
    case Kind::rounded: weight(random, s.dtype, w); u = u >> 12 << 12; break;
    case Kind::near: u = base + random.below(9) - 4; break;
    case Kind::few: u = base + (random.below(s.seed == 79 ? 700 : 12) == 0 ? 1 + random.below(5) : 0); break;
    case Kind::planes: u = base ^ random.below(3) << 16; break;
    case Kind::equal: u = base; break;
  }
  return i + 1 == s.n && s.kind == Kind::constant ? 0x41414141 : u;
}

void save(const std::string& path, const Bytes& b) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(b.data()), static_cast<std::streamsize>(b.size()));
  out.close();
  if (!out) {
    std::perror(path.c_str());
    std::exit(1);
  }
}

Bytes head_of(const Seed& s, unsigned flags) {
  const size_t n = (s.n - 1) % fuzz::kLong;
  flags |= (s.base ? fuzz::has_base : 0u) | (s.n > fuzz::kLong ? fuzz::is_long : 0u) | (s.digits >= 0 ? fuzz::has_digits : 0u) |
           (s.levels & 127 ? fuzz::has_levels : 0u);
  return {static_cast<uint8_t>(s.dtype), static_cast<uint8_t>(n), static_cast<uint8_t>(n >> 8), static_cast<uint8_t>(flags),
          static_cast<uint8_t>(s.levels ? s.levels : std::max(s.digits, 0)), 0, static_cast<uint8_t>(s.seed), 0};
}

void write(const std::string& folder, const Seed& s) {
  const size_t width = kDtypes[s.dtype].unit_bytes();
  Bytes decode = head_of(s, 0);
  const fuzz::Head head(decode.data());
  fuzz::require(head.n == s.n && head.digits == s.digits);
  const Bytes base = fuzz::noise(head.bytes(), head.seed);
  Bytes units(head.bytes());
  Random random;
  for (size_t i = 0; i < s.n; ++i) {
    uint64_t b = 0;
    std::memcpy(&b, &base[i * width], width);
    const uint64_t u = unit_of(s, random, b, i);
    std::memcpy(&units[i * width], &u, width);
  }
  const Bytes payload = fuzz::encode("scalar", units, head, s.base ? base.data() : nullptr);
  append_bytes(decode, payload.data(), payload.size());
  std::printf("%-18s mode %2d, %zu bytes\n", s.name, payload[0], payload.size());
  save(folder + "/decode_chunk/" + s.name, decode);

  // The other targets make their base from the units, and repeat these.
  const unsigned kind = s.kind == Kind::near ? 6 : s.kind == Kind::few ? 4 : s.kind == Kind::planes ? 2 : 0;
  const size_t some = std::min<size_t>(units.size(), 160);
  Bytes round_trip = head_of(s, kind | fuzz::drifting), damage = round_trip;
  append_bytes(round_trip, units.data(), some);
  save(folder + "/round_trip/" + s.name, round_trip);
  for (int i = 0; i < 25; ++i) damage.push_back(static_cast<uint8_t>(i == 0 ? 1 : random.next() >> 20));
  append_bytes(damage, units.data(), some);
  save(folder + "/damage/" + s.name, damage);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_seeds FOLDER\n");
    return 2;
  }
  for (const Seed& s : kSeeds) write(argv[1], s);
}
