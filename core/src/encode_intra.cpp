// Blocks that need no base: which mode is cheapest, by exact histograms (docs/format.md 3.1, 3.4 to 3.7).
#include <algorithm>
#include <cstring>

#include "limosa/chunk.hpp"

namespace limosa {
namespace {

constexpr uint64_t kTableEntryBits = 7, kStreamBits = 80;
constexpr uint64_t kEscapeBits = 16;  // of an escape other than zero, roughly
constexpr size_t kZeroShare = 16;  // a mask is tried when one unit in so many is zero
constexpr size_t kCell = 2048;  // units whose trailing zeros are looked at together

struct Plan {
  Mode mode = Mode::raw;
  uint64_t bits = 0;
  unsigned joined = 0, zeros = 0;  // fields: k, z
  uint32_t window = 0;
  uint64_t escapes = 0;
  uint32_t counts[256] = {};  // fields: of the symbols
};

unsigned trailing_zeros(uint64_t any, const Dtype& d) {
  const unsigned z = any == 0 ? 64 : static_cast<unsigned>(__builtin_ctzll(any));
  return std::min(z, d.mantissa_bits);
}

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
                     unsigned k, unsigned z, std::vector<uint32_t>& merged, Plan& best) {
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
  uint64_t cost = entropy_bits(symbols, 256) + (used + (escapes != 0)) * kTableEntryBits + kStreamBits + uint64_t{n} * r;
  if (escapes) cost += outside > 1 ? kEscapeBits * (escapes - std::min<uint64_t>(escapes, merged[0])) + 80 : 48;
  if (cost >= best.bits) return;
  best = {Mode::fields, cost, k, z, static_cast<uint32_t>(window), escapes, {}};
  std::copy(symbols, symbols + 256, best.counts);
}

void plan_fields(const uint8_t* units, size_t n, const Dtype& d, uint64_t any, Plan& best) {
  const unsigned z = trailing_zeros(any, d);
  // Two joined bits hold nearly all that the mantissa owes to the exponent; F16 has room for three in a byte.
  const unsigned most = std::min(d.exponent_bits == 5 ? 3u : 2u, d.mantissa_bits - z);
  const unsigned bits = d.exponent_bits + most;
  std::vector<uint32_t> bins(size_t{4} << bits, 0), merged;
  kernels().top_histogram(units, d.unit_bits, n, bits, bins.data());
  const size_t count = size_t{1} << bits;
  for (size_t t = 0; t < count; ++t) bins[t] += bins[count + t] + bins[2 * count + t] + bins[3 * count + t];
  bins.resize(count);
  size_t low = 1, high = count - 1;
  while (low < high && bins[low] == 0) ++low;
  while (high > low && bins[high] == 0) --high;
  for (unsigned k = most;; --k) {
    consider_fields(bins, low, high, bits, n, d, k, z, merged, best);
    if (k == 0) break;
  }
}

uint64_t load_unit(const uint8_t* p, size_t size) {
  uint64_t v = 0;
  std::memcpy(&v, p, size);
  return v;
}

// Up to 256 distinct values with their counts, in a small hash table.
class Palette {
 public:
  explicit Palette(size_t size) : size_(size) {}

  // False if there are too many to be worth it.
  bool collect(const uint8_t* units, size_t n) {
    const size_t most = std::min<size_t>(256, n / 4);
    for (size_t i = 0; i < n; ++i) {
      const uint64_t v = load_unit(units + i * size_, size_);
      const size_t at = find(v);
      if (counts_[at] == 0) {
        if (values.size() == most) return false;
        keys_[at] = v;
        values.push_back(v);
      }
      ++counts_[at];
    }
    std::sort(values.begin(), values.end());
    for (size_t k = 0; k < values.size(); ++k) index_[find(values[k])] = static_cast<uint8_t>(k);
    return true;
  }

  uint64_t cost() const {
    std::vector<uint32_t> bins;
    for (const uint64_t v : values) bins.push_back(counts_[find(v)]);
    return entropy_bits(bins.data(), bins.size()) + values.size() * (kTableEntryBits + size_ * 8) + kStreamBits;
  }

  uint8_t index(uint64_t v) const { return index_[find(v)]; }

  std::vector<uint64_t> values;

 private:
  static constexpr size_t kSlots = 1024;

  size_t find(uint64_t v) const {
    size_t at = static_cast<size_t>(v * 0x9E3779B97F4A7C15u >> 54);
    while (counts_[at] != 0 && keys_[at] != v) at = (at + 1) % kSlots;
    return at;
  }

  size_t size_;
  uint64_t keys_[kSlots] = {};
  uint32_t counts_[kSlots] = {};
  uint8_t index_[kSlots] = {};
};

void append_fields(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, const Plan& plan, EncodeScratch& s) {
  const unsigned top = d.exponent_bits + plan.joined;
  const BitPlanes planes{d.unit_bits - top - plan.zeros, n};
  s.symbols.resize(n);
  s.planes.resize(planes.bytes());
  kernels().split(units, d.unit_bits, n, top, plan.zeros, plan.window, s.symbols.data(), s.planes.data());
  out.push_back(static_cast<uint8_t>(plan.joined));
  out.push_back(static_cast<uint8_t>(plan.zeros));
  append(out, static_cast<uint16_t>(plan.window));
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
  encode_symbols(out, s.symbols.data(), n, nullptr, 1, s, plan.counts);
  append_bytes(out, s.planes.data(), s.planes.size());
}

void append_palette(Bytes& out, const uint8_t* units, size_t n, size_t size, const Palette& palette, EncodeScratch& s) {
  out.push_back(static_cast<uint8_t>(palette.values.size() - 1));
  for (const uint64_t v : palette.values) append_bytes(out, &v, size);
  s.symbols.resize(n);
  for (size_t i = 0; i < n; ++i) s.symbols[i] = palette.index(load_unit(units + i * size, size));
  encode_symbols(out, s.symbols.data(), n, nullptr, 1, s);
}

// Chooses among raw, fields, palette and planes and appends the content of the block, without its header.
// `write` false only measures.
Plan encode_content(Bytes* out, const uint8_t* units, size_t n, const Dtype& d, uint64_t any, EncodeScratch& s) {
  const size_t size = d.unit_bytes();
  Plan plan;
  plan.bits = uint64_t{n} * d.unit_bits;
  if (d.is_float()) plan_fields(units, n, d, any, plan);
  else plan.mode = Mode::planes;
  if (size > 1 && n >= 16) {
    Palette palette(size);
    if (palette.collect(units, n) && palette.cost() < plan.bits) {
      if (out) append_palette(*out, units, n, size, palette, s);
      plan.mode = Mode::palette;
      plan.bits = palette.cost();
      return plan;
    }
  }
  if (!out) return plan;
  if (plan.mode == Mode::fields) append_fields(*out, units, n, d, plan, s);
  else if (plan.mode == Mode::planes) append_planes(*out, units, size, n, s);
  else append_bytes(*out, units, n * size);
  return plan;
}

template <class T>
size_t count_zeros_of(const uint8_t* units, size_t n) {
  size_t zeros = 0;
  for (size_t i = 0; i < n; ++i) {
    T v;
    std::memcpy(&v, units + i * sizeof(T), sizeof(T));
    zeros += v == 0;
  }
  return zeros;
}

size_t count_zeros(const uint8_t* units, size_t n, size_t size) {
  return size == 1   ? count_zeros_of<uint8_t>(units, n)
         : size == 2 ? count_zeros_of<uint16_t>(units, n)
         : size == 4 ? count_zeros_of<uint32_t>(units, n)
                     : count_zeros_of<uint64_t>(units, n);
}

// The zero mask in place of one block, when it is smaller.
bool encode_zero_mask(Bytes& out, size_t block_start, const uint8_t* units, size_t n, const Dtype& d, uint64_t any,
                      EncodeScratch& s) {
  const size_t size = d.unit_bytes(), zeros = count_zeros(units, n, size);
  if (zeros * kZeroShare < n || zeros == n) return false;
  Bytes mask((n + 7) / 8, 0), rest, block;
  rest.reserve((n - zeros) * size);
  for (size_t i = 0; i < n; ++i) {
    if (load_unit(units + i * size, size) == 0) continue;
    mask[i / 8] |= static_cast<uint8_t>(1u << (i % 8));
    append_bytes(rest, units + i * size, size);
  }
  append_block_header(block, Mode::zero_mask, 0);
  append_varint(block, n - zeros);
  encode_symbols(block, mask.data(), mask.size(), nullptr, 1, s);
  const size_t mode_at = block.size();
  block.push_back(0);
  block[mode_at] = static_cast<uint8_t>(encode_content(&block, rest.data(), n - zeros, d, any, s).mode);
  if (block.size() >= out.size() - block_start) return false;
  out.resize(block_start);
  append_block_header(out, Mode::zero_mask, n);
  append_bytes(out, block.data() + 2, block.size() - 2);  // the header of `block` was mode and 0
  return true;
}

void encode_segment(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, EncodeScratch& s) {
  uint64_t any, differing;
  kernels().or_units(units, d.unit_bits, n, &any, &differing);
  if (differing == 0) {
    append_block_header(out, Mode::constant, n);
    append_bytes(out, units, d.unit_bytes());
    return;
  }
  const size_t start = out.size();
  append_block_header(out, Mode::raw, n);
  const Plan plan = encode_content(&out, units, n, d, any, s);
  out[start] = static_cast<uint8_t>(plan.mode);
  // Zeros are escapes of a fields block, so few escapes mean few zeros.
  if (plan.mode != Mode::fields || plan.escapes * kZeroShare >= n) encode_zero_mask(out, start, units, n, d, any, s);
}

constexpr unsigned kAllZero = 64;

// Ends of runs of cells that share their number of trailing zero bits.
std::vector<size_t> segments(const uint8_t* units, size_t n, const Dtype& d) {
  std::vector<size_t> ends;
  if (d.is_float() && d.unit_bits > 16) {
    unsigned current = ~0u;
    for (size_t at = 0; at < n; at += kCell) {
      uint64_t any, differing;
      kernels().or_units(units + at * d.unit_bytes(), d.unit_bits, std::min(kCell, n - at), &any, &differing);
      unsigned z = any == 0 ? kAllZero : trailing_zeros(any, d);
      if (z < 3) z = 0;  // chance
      if (at != 0 && z != current) ends.push_back(at);
      current = z;
    }
  }
  ends.push_back(n);
  return ends;
}

}  // namespace

void append_planes(Bytes& out, const uint8_t* units, size_t stride, size_t n, EncodeScratch& s) {
  for (size_t p = 0; p < stride; ++p) {
    s.symbols.resize(n);
    kernels().gather_plane(units + p, stride, n, s.symbols.data());
    encode_symbols(out, s.symbols.data(), n, nullptr, 1, s);
  }
}

void encode_intra(Bytes& out, const uint8_t* units, size_t n, unsigned dtype, EncodeScratch& scratch) {
  const Dtype& d = kDtypes[dtype];
  size_t from = 0;
  for (const size_t end : segments(units, n, d)) {
    encode_segment(out, units + from * d.unit_bytes(), end - from, d, scratch);
    from = end;
  }
}

uint64_t intra_cost(const uint8_t* units, size_t n, unsigned dtype, EncodeScratch& scratch) {
  const Dtype& d = kDtypes[dtype];
  if (d.is_float()) {
    uint64_t any, differing;
    kernels().or_units(units, d.unit_bits, n, &any, &differing);
    return encode_content(nullptr, units, n, d, any, scratch).bits;
  }
  Bytes out;
  encode_intra(out, units, n, dtype, scratch);
  return uint64_t{out.size()} * 8;
}

}  // namespace limosa
