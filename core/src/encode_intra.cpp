// Blocks that need no base: which mode is cheapest, by exact histograms (docs/format.md 3.1, 3.4 to 3.7).
#include "encode_fields.hpp"

namespace limosa {
namespace {

constexpr size_t kIdleShare = 16;  // zeros and repeats are looked for when one unit in so many may be one
constexpr size_t kManyUnits = 2048;  // below, tables may cost more than zeros save
constexpr uint64_t kClassesSave = 16;  // of the cost of fields, at most one part in so many
constexpr size_t kCell = 2048;  // units whose trailing zeros are looked at together

// What became of a block.
struct Coded {
  Mode mode = Mode::raw;
  uint64_t bits = 0;
};

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

void append_palette(Bytes& out, const uint8_t* units, size_t n, size_t size, const Palette& palette, EncodeScratch& s) {
  out.push_back(static_cast<uint8_t>(palette.values.size() - 1));
  for (const uint64_t v : palette.values) append_bytes(out, &v, size);
  s.symbols.resize(n);
  for (size_t i = 0; i < n; ++i) s.symbols[i] = palette.index(load_unit(units + i * size, size));
  encode_symbols(out, s.symbols.data(), n, nullptr, 1, s);
}

// Chooses among raw, fields, palette and planes and appends the content of the block, without its header.
// `out` null only measures; `rows` null: no classes.
Coded encode_content(Bytes* out, const uint8_t* units, size_t n, const Dtype& d, const Rows* rows, EncodeScratch& s) {
  const size_t size = d.unit_bytes();
  uint64_t any, differing;
  kernels().or_units(units, d.unit_bits, n, &any, &differing);
  Coded coded;
  coded.bits = uint64_t{n} * d.unit_bits;
  FieldsPlan fields;
  if (!d.is_float()) coded.mode = Mode::planes;
  else if (plan_fields(fields, units, n, d, any, coded.bits)) coded = {Mode::fields, fields.bits};
  if (size > 1 && n >= 16) {
    Palette palette(size);
    if (palette.collect(units, n) && palette.cost() < coded.bits) {
      if (out) append_palette(*out, units, n, size, palette, s);
      return {Mode::palette, palette.cost()};
    }
  }
  if (!out) return coded;
  if (coded.mode == Mode::fields) coded.mode = append_fields(*out, units, n, d, fields, rows, s);
  else if (coded.mode == Mode::planes) append_planes(*out, units, size, n, s);
  else append_bytes(*out, units, n * size);
  return coded;
}

bool has_palette(const uint8_t* units, size_t n, const Dtype& d) {
  return d.unit_bytes() > 1 && n >= 16 && Palette(d.unit_bytes()).collect(units, n);
}

// A block that holds nothing but its content.
void append_content(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, const Rows* rows, EncodeScratch& s) {
  const size_t start = out.size();
  append_block_header(out, Mode::raw, n);
  out[start] = static_cast<uint8_t>(encode_content(&out, units, n, d, rows, s).mode);
}

void encode_segment(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, const Rows* rows, EncodeScratch& s) {
  uint64_t any, differing;
  kernels().or_units(units, d.unit_bits, n, &any, &differing);
  if (differing == 0) {
    append_block_header(out, Mode::constant, n);
    append_bytes(out, units, d.unit_bytes());
    return;
  }
  const size_t start = out.size();
  const size_t idle = zeros_and_repeats(units, n, d);
  if (idle * kIdleShare < n) return append_content(out, units, n, d, rows, s);
  // Where many units are idle only a palette could be smaller than what leaves them out.
  const bool surely = n >= kManyUnits && idle * 4 >= n && !has_palette(units, n, d);
  const uint64_t plain = surely ? ~uint64_t{0} : encode_content(nullptr, units, n, d, nullptr, s).bits;
  if (encode_repeats(out, units, rows ? *rows : Rows{n, n, 0}, d, s)) {
    if (uint64_t{out.size() - start} * 8 < plain) return;
    out.resize(start);
  }
  Bytes masked;
  const bool has_mask = encode_zero_mask(masked, units, n, d, s);
  if (!has_mask || uint64_t{masked.size()} * 8 > plain - plain / kClassesSave) {
    append_content(out, units, n, d, rows, s);
    if (!has_mask || masked.size() >= out.size() - start) return;
    out.resize(start);
  }
  append_bytes(out, masked.data(), masked.size());
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

void append_plain(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, EncodeScratch& s) {
  const size_t mode_at = out.size();
  out.push_back(0);
  out[mode_at] = static_cast<uint8_t>(encode_content(&out, units, n, d, nullptr, s).mode);
}

void append_planes(Bytes& out, const uint8_t* units, size_t stride, size_t n, EncodeScratch& s) {
  for (size_t p = 0; p < stride; ++p) {
    s.symbols.resize(n);
    kernels().gather_plane(units + p, stride, n, s.symbols.data());
    encode_symbols(out, s.symbols.data(), n, nullptr, 1, s);
  }
}

void encode_intra(Bytes& out, const ChunkInput& in, EncodeScratch& scratch) {
  const Dtype& d = kDtypes[in.dtype];
  size_t from = 0;
  for (const size_t end : segments(in.units, in.n, d)) {
    const Rows rows{end - from, in.columns, in.columns ? (in.first_column + from) % in.columns : 0};
    encode_segment(out, in.units + from * d.unit_bytes(), end - from, d, in.columns ? &rows : nullptr, scratch);
    from = end;
  }
}

uint64_t intra_cost(const ChunkInput& in, EncodeScratch& scratch) {
  const Dtype& d = kDtypes[in.dtype];
  if (d.is_float()) {
    return encode_content(nullptr, in.units, in.n, d, nullptr, scratch).bits;
  }
  Bytes out;
  encode_intra(out, in, scratch);
  return uint64_t{out.size()} * 8;
}

}  // namespace limosa
