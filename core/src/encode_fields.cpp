// Units as fields: how many bits to join, which window, whether classes pay (docs/format.md 3.4, 3.14).
#include "encode_fields.hpp"

namespace limosa {
namespace {

constexpr uint64_t kEscapeBits = 16;  // of an escape other than zero, roughly
// Classes slow the decoder down, so that they have to save one part in so many.
constexpr uint64_t kLeastGain = 500;
constexpr size_t kFewUnits = 4096;  // below, tables and lists cost more than they save
constexpr size_t kManyUnits = 65536;  // from here on the most classes win, and a part of the symbols tells what they save
constexpr size_t kSample = 1024, kSampled = 8;  // of many units, so many of every kSampled times as many

// Bits of a symbol that occurs c times among n. A frequency is at least one slot, which is too much for the rare
// ones: what they hold beyond their share all others pay for.
uint64_t symbol_bits(uint64_t c, uint64_t n) {
  if (c == 0) return 0;
  const uint64_t slots = 1u << kMaxLog2Total;
  if (c * slots >= n) return (c * (log2_fixed(static_cast<uint32_t>(n)) - log2_fixed(static_cast<uint32_t>(c))) >> 16) + kTableEntryBits;
  return c * kMaxLog2Total + (n / slots * 3 - 2 * c) / 2 + kTableEntryBits;
}

// Moves the start of the window up past rare small values: as escapes they cost some bits and a symbol each, but
// no frequency.
size_t cut_tail(const std::vector<uint32_t>& fields, size_t window, size_t low, uint64_t n) {
  constexpr uint64_t kMostEscapes = 1024;
  const uint64_t zeros = fields[0];  // nearly free among the escapes
  uint64_t escapes = 0;
  for (size_t t = std::max<size_t>(low, 1); t <= window; ++t) escapes += fields[t];
  const auto escape_bits = [&](uint64_t e) {
    return static_cast<int64_t>(kEscapeBits * e + symbol_bits(zeros + e, n));
  };
  const int64_t start = escape_bits(escapes);
  int64_t best = 0, saved = 0;
  size_t chosen = window;
  for (size_t t = std::max(window + 1, low); t + 1 < fields.size(); ++t) {
    escapes += fields[t];
    if (escapes > kMostEscapes || escapes * 64 > n) break;
    saved += static_cast<int64_t>(symbol_bits(fields[t], n));
    const int64_t gain = saved - (escape_bits(escapes) - start);
    if (gain > best) {
      best = gain;
      chosen = t;
    }
  }
  return chosen;
}

// The start of the window of 255 fields that holds most values; `last` is the highest field that occurs.
size_t best_window(const std::vector<uint32_t>& fields, size_t last) {
  if (last <= kWindow) return 0;
  uint64_t inside = 0;
  for (size_t t = 1; t <= kWindow; ++t) inside += fields[t];
  uint64_t most = inside;
  size_t window = 0;
  for (size_t w = 1; w + kWindow <= last; ++w) {
    inside += fields[w + kWindow];
    inside -= fields[w];
    if (inside > most) {
      most = inside;
      window = w;
    }
  }
  return window;
}

// Fields with k joined bits, from the histogram of top fields with `bits` bits; only [low, high] occur, or 0.
void consider_fields(const std::vector<uint32_t>& bins, size_t low, size_t high, unsigned bits, size_t n, const Dtype& d,
                     unsigned k, unsigned z, bool positive, std::vector<uint32_t>& merged, FieldsPlan& best) {
  const unsigned shift = bits - d.exponent_bits - k;
  merged.assign((high >> shift) + 2, 0);
  merged[0] = bins[0];
  for (size_t t = low; t <= high; ++t) merged[t >> shift] += bins[t];
  const size_t window = cut_tail(merged, best_window(merged, high >> shift), low >> shift, n);
  uint32_t symbols[256] = {};
  unsigned used = 0, outside = 0;
  const auto count = [&](size_t t) {
    const bool in_window = t > window && t - window <= kWindow;
    symbols[in_window ? t - window : 0] += merged[t];
    outside += !in_window;
    used += in_window;
  };
  if (merged[0]) count(0);
  for (size_t t = std::max<size_t>(low >> shift, 1); t <= high >> shift; ++t)
    if (merged[t]) count(t);
  const uint64_t escapes = symbols[0];
  const unsigned r = d.unit_bits - d.exponent_bits - k - z;
  const bool is_unsigned = positive && r % 2;  // then the last plane is that of the signs
  uint64_t cost = entropy_bits(symbols, 256) + (used + (escapes != 0)) * kTableEntryBits + kStreamBits + uint64_t{n} * (r - is_unsigned);
  if (escapes) cost += outside > 1 ? kEscapeBits * (escapes - std::min<uint64_t>(escapes, merged[0])) + 80 : 48;
  if (cost >= best.bits) return;
  best = {cost, k, z, is_unsigned, static_cast<uint32_t>(window), escapes, {}};
  std::copy(symbols, symbols + 256, best.counts);
}

// Mean symbols of rows and columns: they are nearly logarithms of magnitudes already.
void profile(const Rows& rows, const uint8_t* symbols, unsigned joined, Profile& r, Profile& c) {
  constexpr size_t kMostRows = 257;  // whose symbols add up to at most 2^16 - 1
  std::vector<uint16_t> part(rows.columns);
  std::vector<uint32_t> sums(rows.columns);
  const auto flush = [&] {
    for (size_t i = 0; i < rows.columns; ++i) {
      sums[i] += part[i];
      part[i] = 0;
    }
  };
  const auto mean = [&](uint32_t sum, uint32_t units) { return units ? int64_t{sum} * (kOctave >> joined) / units : 0; };
  rows.each([&](size_t row, size_t column, size_t at, size_t n) {
    const uint8_t* from = symbols + at;
    uint16_t* to = part.data() + column;
    uint32_t sum = 0;
    for (size_t i = 0; i < n; ++i) sum += from[i];
    for (size_t i = 0; i < n; ++i) to[i] = static_cast<uint16_t>(to[i] + from[i]);
    r.units[row] = static_cast<uint32_t>(n);
    r.log[row] = mean(sum, r.units[row]);
    if (row % kMostRows == kMostRows - 1) flush();
  });
  flush();
  const size_t count = rows.count(), end = rows.first + rows.n - (count - 1) * rows.columns;
  for (size_t i = 0; i < rows.columns; ++i) {
    c.units[i] = static_cast<uint32_t>(count - (i < rows.first) - (i >= end));
    c.log[i] = mean(sums[i], c.units[i]);
  }
  r.summarise(rows.n);
  c.summarise(rows.n);
}

// Bits that the classes of s.classes save, without their lists; from a part of the symbols where these are many.
int64_t bits_saved(size_t n, unsigned count, EncodeScratch& s) {
  const size_t stride = n < kManyUnits ? kSample : kSampled * kSample;
  s.bins.assign((count + 1) * 256, 0);
  size_t counted = 0;
  for (size_t at = 0; at < n; at += stride) {
    const size_t end = std::min(at + kSample, n);
    for (size_t i = at; i < end; ++i) ++s.bins[size_t{s.classes[i]} * 256 + s.symbols[i]];
    counted += end - at;
  }
  uint32_t* const all = s.bins.data() + count * 256;
  uint64_t apart = 0, tables = 0;
  for (unsigned c = 0; c < count; ++c) {
    const uint32_t* bins = s.bins.data() + c * 256;
    unsigned used = 0;
    for (size_t k = 0; k < 256; ++k) {
      all[k] += bins[k];
      used += bins[k] != 0;
    }
    apart += entropy_bits(bins, 256);
    tables += kStreamBits / 2 + used * kTableEntryBits;
  }
  unsigned used = 0;
  for (size_t k = 0; k < 256; ++k) used += all[k] != 0;
  const int64_t saved = static_cast<int64_t>(entropy_bits(all, 256)) - static_cast<int64_t>(apart);
  return saved * static_cast<int64_t>(n) / static_cast<int64_t>(counted) + used * static_cast<int64_t>(kTableEntryBits) -
         static_cast<int64_t>(tables);
}

// Classes for the symbols of s.symbols, and s.classes with those of the units; a count of 1 if they save too little.
RowClasses plan_row_classes(const Rows& rows, const FieldsPlan& plan, EncodeScratch& s) {
  if (rows.n < kFewUnits || too_many_lists(rows)) return {};
  Profile r(rows.count()), c(rows.columns);
  profile(rows, s.symbols.data(), plan.joined, r, c);
  s.classes.resize(rows.n);
  RowClasses best;
  int64_t most = static_cast<int64_t>(plan.bits / kLeastGain);
  unsigned filled = 1;
  for (const unsigned count : {2u, 4u, 8u}) {
    if (count < kMaxClasses && rows.n >= kManyUnits) continue;
    RowClasses lists = make_classes(r, c, count);
    if (lists.count == 1) break;
    fill_classes(rows, lists, 0, s.classes.data());
    filled = count;
    const int64_t saved = bits_saved(rows.n, count, s) - static_cast<int64_t>(lists_bits(lists));
    if (saved <= most) continue;
    most = saved;
    best = std::move(lists);
  }
  if (best.count > 1 && best.count != filled) fill_classes(rows, best, 0, s.classes.data());
  return best;
}

}  // namespace

bool plan_fields(FieldsPlan& plan, const uint8_t* units, size_t n, const Dtype& d, uint64_t any, uint64_t most) {
  plan.bits = most;
  const unsigned z = trailing_zeros(any, d);
  // Two joined bits hold nearly all that the mantissa owes to the exponent; F16 has room for three in a byte.
  // Without signs one more leaves planes without a rest.
  const bool positive = any >> (d.unit_bits - 1) == 0;
  const unsigned widest = std::min(d.exponent_bits == 5 || positive ? 3u : 2u, d.mantissa_bits - z);
  const unsigned bits = d.exponent_bits + widest;
  std::vector<uint32_t> bins(size_t{4} << bits, 0), merged;
  kernels().top_histogram(units, d.unit_bits, n, bits, bins.data());
  const size_t count = size_t{1} << bits;
  for (size_t t = 0; t < count; ++t) bins[t] += bins[count + t] + bins[2 * count + t] + bins[3 * count + t];
  bins.resize(count);
  size_t low = 1, high = count - 1;
  while (low < high && bins[low] == 0) ++low;
  while (high > low && bins[high] == 0) --high;
  for (unsigned k = widest;; --k) {
    consider_fields(bins, low, high, bits, n, d, k, z, positive, merged, plan);
    if (k == 0) break;
  }
  return plan.bits < most;
}

Mode append_fields(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, const FieldsPlan& plan, const Rows* rows,
                   EncodeScratch& s) {
  const unsigned top = d.exponent_bits + plan.joined;
  const BitPlanes planes{d.unit_bits - top - plan.zeros, n};
  s.symbols.resize(n);
  s.planes.resize(planes.bytes());
  kernels().split(units, d.unit_bits, n, top, plan.zeros, plan.window, s.symbols.data(), s.planes.data());
  out.push_back(static_cast<uint8_t>(plan.joined | (plan.is_unsigned ? kUnsigned : 0)));
  out.push_back(static_cast<uint8_t>(plan.zeros));
  append(out, static_cast<uint16_t>(plan.window));
  const RowClasses lists = rows ? plan_row_classes(*rows, plan, s) : RowClasses{};
  const bool classed = lists.count > 1;
  if (classed) {
    append_varint(out, rows->columns);
    append_varint(out, rows->first);
    append_classes(out, lists, s);
  }
  append_varint(out, plan.escapes);
  if (plan.escapes) {
    std::vector<uint16_t> fields;
    const size_t size = d.unit_bytes();
    for (size_t i = 0; (i = find_zero(s.symbols.data(), i, n)) < n; ++i) {
      const uint64_t u = load_unit(units + i * size, size);
      fields.push_back(static_cast<uint16_t>(u >> (d.unit_bits - 1 - top) & ((1u << top) - 1)));
    }
    encode_integers(out, reinterpret_cast<const uint8_t*>(fields.data()), 16, fields.size(), nullptr, 1, s);
  }
  if (classed) encode_symbols(out, s.symbols.data(), n, s.classes.data(), lists.count, s);
  else encode_symbols(out, s.symbols.data(), n, nullptr, 1, s, plan.counts);
  append_bytes(out, s.planes.data(), s.planes.size() - (plan.is_unsigned ? (n + 7) / 8 : 0));
  return classed ? Mode::classed_fields : Mode::fields;
}

}  // namespace limosa
