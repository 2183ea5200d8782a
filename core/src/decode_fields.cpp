// Fields to units (docs/format.md 3.4, 3.14).
#include <cstring>

#include "decode_block.hpp"

namespace limosa {
namespace {

// The top fields of escaped units, in order.
std::vector<uint16_t> read_escapes(Reader& r, size_t n, unsigned top, DecodeScratch& s) {
  const uint64_t count = r.varint();
  if (count > n) r.corrupt("more escapes than units");
  std::vector<uint16_t> fields(static_cast<size_t>(count));
  if (count == 0) return fields;
  IntegerDecoder decoder;
  decoder.begin(r, fields.size(), 16, 1, s, s.table);
  decoder.next(reinterpret_cast<uint8_t*>(fields.data()), nullptr, fields.size());
  decoder.finish();
  for (const uint16_t f : fields)
    if (f >> top) r.corrupt("top field of an escape out of range");
  return fields;
}

// Puts the top fields of escaped units in place; `done` escapes came before this piece.
void place_escapes(const Reader& r, const std::vector<uint16_t>& fields, size_t* done, const uint8_t* symbols, size_t n, const Dtype& d,
                   unsigned top, uint8_t* units) {
  const size_t size = d.unit_bytes();
  const unsigned low = d.unit_bits - 1 - top;
  const uint64_t clear = ~(((uint64_t{1} << top) - 1) << low);
  for (size_t i = 0; (i = find_zero(symbols, i, n)) < n; ++i) {
    if (*done == fields.size()) r.corrupt("more escape symbols than escapes");
    const uint16_t f = fields[(*done)++];
    uint64_t u = 0;
    std::memcpy(&u, units + i * size, size);
    u = (u & clear) | static_cast<uint64_t>(f) << low;
    std::memcpy(units + i * size, &u, size);
  }
}

// The planes of a block; those of units that are not negative come without the last, which is put back.
const uint8_t* read_planes(Reader& r, const BitPlanes& planes, bool is_unsigned, DecodeScratch& s) {
  if (!is_unsigned) return r.take(planes.bytes());
  if (planes.bits % 2 == 0) r.corrupt("unsigned fields whose last plane is not that of the signs");
  const size_t signs = (planes.units + 7) / 8, rest = planes.bytes() - signs;
  const uint8_t* data = r.take(rest);
  s.planes.resize(std::max(s.planes.size(), planes.bytes()));
  if (rest) std::memcpy(s.planes.data(), data, rest);
  std::memset(s.planes.data() + rest, 0, signs);
  return s.planes.data();
}

}  // namespace

void decode_fields(Reader& r, const Block& b, bool classed) {
  if (!b.d.is_float()) r.corrupt("fields block in a tensor that is not float");
  const unsigned head = r.number<uint8_t>(), z = r.number<uint8_t>(), window = r.number<uint16_t>();
  const unsigned k = head % kUnsigned;
  if (k > kMaxJoined || k + z > b.d.mantissa_bits) r.corrupt("joined bits or trailing zeros out of range");
  const unsigned top = b.d.exponent_bits + k;
  if (window >> top) r.corrupt("window out of range");
  const Rows rows = classed ? read_rows(r, b.n) : Rows{b.n, b.n, 0};
  const RowClasses lists = classed ? read_row_classes(r, rows, read_class_count(r, 2), b) : RowClasses{};
  const std::vector<uint16_t> escapes = read_escapes(r, b.n, top, b.s);
  SymbolDecoder symbols;
  symbols.begin(r, b.n, lists.count, b.s.table);
  const BitPlanes planes{b.d.unit_bits - top - z, b.n};
  const uint8_t* plane_data = read_planes(r, planes, head / kUnsigned, b.s);
  b.s.symbols.resize(std::max(b.s.symbols.size(), std::min(b.n, kPiece)));
  if (classed) b.s.classes.resize(std::max(b.s.classes.size(), std::min(b.n, kPiece)));
  const unsigned highest = (1u << top) - 1 - window;  // largest symbol that is a top field
  size_t done = 0;
  for (size_t at = 0; at < b.n; at += kPiece) {
    const size_t n = std::min(kPiece, b.n - at);
    uint8_t* units = b.units + at * b.d.unit_bytes();
    if (classed) {
      const size_t from = rows.first + at;
      fill_classes({n, rows.columns, from % rows.columns}, lists, from / rows.columns, b.s.classes.data());
    }
    symbols.next(b.s.symbols.data(), classed ? b.s.classes.data() : nullptr, n);
    uint8_t most = 0, least = 255;
    for (size_t i = 0; i < n; ++i) {
      most = std::max(most, b.s.symbols[i]);
      least = std::min(least, b.s.symbols[i]);
    }
    if (most > highest) r.corrupt("symbol beyond the top field");
    kernels().join(b.s.symbols.data(), plane_data, b.d.unit_bits, at, n, b.n, top, z, window, units);
    if (least == 0) place_escapes(r, escapes, &done, b.s.symbols.data(), n, b.d, top, units);
  }
  symbols.finish();
  if (done != escapes.size()) r.corrupt("more escapes than escape symbols");
}

}  // namespace limosa
