// Which units share a frequency table: those whose row and column, or whose base, promise levels of one size
// (docs/format.md 3.11).
#include <cstring>

#include "encode_levels.hpp"

namespace limosa {
namespace {

constexpr size_t kFewUnits = 512;        // below, no table pays for another
constexpr size_t kManyUnits = 65536;
constexpr size_t kSample = 1024, kSampled = 4;  // of many units, so many of every kSampled times as many
constexpr unsigned kCapped = 64;         // levels from here on count as one
constexpr uint32_t kLeastMean = 4;       // of |x|, in steps / kFixedOne: rows below are as good as zero
constexpr uint64_t kTableBits = 40, kEntryBits = 8;

uint32_t magnitude(int32_t x) { return static_cast<uint32_t>(std::min(x < 0 ? -x : x, 1 << 20)); }

void profile(const Rows& rows, const int32_t* x, Profile& r, Profile& c) {
  std::vector<uint64_t> sums(c.log.size());
  rows.each([&](size_t row, size_t column, size_t at, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; ++i) sum += magnitude(x[at + i]);
    const uint64_t mean = std::max<uint64_t>(sum * 16 / n, kLeastMean * 16);
    r.log[row] = log2_fixed(static_cast<uint32_t>(mean));
    r.units[row] = static_cast<uint32_t>(n);
    const uint64_t weight = (uint64_t{1} << 24) / mean;
    for (size_t i = 0; i < n; ++i) {
      sums[column + i] += magnitude(x[at + i]) * weight;
      ++c.units[column + i];
    }
  });
  for (size_t i = 0; i < sums.size(); ++i) {
    const uint64_t mean = c.units[i] ? sums[i] / c.units[i] : 0;
    c.log[i] = log2_fixed(static_cast<uint32_t>(std::min<uint64_t>(std::max<uint64_t>(mean, 1 << 14), 1u << 31)));
  }
  r.summarise(rows.n);
  c.summarise(rows.n);
}

// Bits of levels with these classes (null: one), tables included.
uint64_t levels_bits(const Bytes& levels, const uint8_t* classes, unsigned count, bool dependent) {
  // Of many levels, pieces are enough.
  const size_t stride = levels.size() < kManyUnits ? kSample : kSampled * kSample;
  uint32_t bins[kMaxClasses][kCapped] = {};
  size_t counted = 0;
  for (size_t at = 0; at < levels.size(); at += stride) {
    const size_t end = std::min(at + kSample, levels.size());
    for (size_t i = at; i < end; ++i) ++bins[classes ? classes[i] : 0][levels[i]];
    counted += end - at;
  }
  uint64_t entropy = 0, tables = 0;
  for (unsigned c = 0; c < count; ++c) {
    unsigned used = 0;
    for (const uint32_t b : bins[c]) used += b != 0;
    entropy += entropy_bits(bins[c], kCapped);
    tables += (dependent ? 2 : 1) * (kTableBits + 2 * used * kEntryBits);
  }
  return entropy * levels.size() / counted + tables;
}

struct Choice {
  uint64_t bits;
  LevelsPlan plan;
};

void try_rows_and_columns(Choice& best, const LevelsPlan& plan, const Bytes& levels, EncodeScratch& s) {
  const Rows& rows = plan.rows;
  if (too_many_lists(rows)) return;
  Profile r(rows.count()), c(rows.columns);
  profile(rows, s.fixed.data(), r, c);
  for (const unsigned count : {2u, 4u, 8u}) {
    LevelsPlan p = plan;
    p.source = ClassSource::rows_and_columns;
    p.classes = count;
    p.lists = make_classes(r, c, count);
    if (p.lists.count == 1) return;
    fill_classes(rows, p.lists, 0, s.classes.data());
    const uint64_t bits = levels_bits(levels, s.classes.data(), count, plan.dependent) + lists_bits(p.lists);
    if (bits < best.bits) best = {bits, std::move(p)};
  }
}

void fill_exponents(const LevelsPlan& p, const ChunkInput& in, EncodeScratch& s) {
  const Dtype& d = kDtypes[in.dtype];
  kernels().contexts(in.base, d.unit_bits, d.exponent_bits, d.mantissa_bits, in.n, p.first_exponent, p.classes,
                     s.classes.data());
}

void try_base_exponent(Choice& best, const LevelsPlan& plan, const ChunkInput& in, const Bytes& levels, EncodeScratch& s) {
  const Dtype& d = kDtypes[in.dtype];
  const size_t bins = size_t{1} << d.exponent_bits;
  s.bins.assign(4 * bins, 0);
  kernels().top_histogram(in.base, d.unit_bits, in.n, d.exponent_bits, s.bins.data());
  size_t above = 0, e = bins;
  while (e > 0 && above <= in.n / 1024) {
    --e;
    for (size_t k = 0; k < 4; ++k) above += s.bins[k * bins + e];
  }
  for (const unsigned count : {4u, 8u}) {
    LevelsPlan p = plan;
    p.source = ClassSource::base_exponent;
    p.classes = count;
    p.first_exponent = e + 1 > count ? static_cast<unsigned>(e + 1 - count) : 0;
    fill_exponents(p, in, s);
    const uint64_t bits = levels_bits(levels, s.classes.data(), count, plan.dependent);
    if (bits < best.bits) best = {bits, std::move(p)};
  }
}

}  // namespace

void plan_classes(LevelsPlan& plan, const ChunkInput& in, EncodeScratch& s) {
  if (in.n < kFewUnits) return;
  s.classes.resize(in.n);
  Bytes levels(in.n);
  const unsigned shift = plan.dependent ? 7 : 6;
  for (size_t i = 0; i < in.n; ++i)
    levels[i] = static_cast<uint8_t>(std::min((magnitude(s.fixed[i]) + (1u << (shift - 1))) >> shift, kCapped - 1));
  Choice best{levels_bits(levels, nullptr, 1, plan.dependent), plan};
  if (plan.rows.columns < in.n) try_rows_and_columns(best, plan, levels, s);
  if (in.base) try_base_exponent(best, plan, in, levels, s);
  plan = std::move(best.plan);
  if (plan.source == ClassSource::rows_and_columns)
    fill_classes(plan.rows, plan.lists, 0, s.classes.data());
  if (plan.source == ClassSource::base_exponent) fill_exponents(plan, in, s);
}

}  // namespace limosa
