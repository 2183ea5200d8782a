// Zeros and repeated values back among the units of their own (docs/format.md 3.6, 3.15).
#include "decode_block.hpp"

namespace limosa {
namespace {

// Reads the units that the block holds in full, `count` of them, into b.s.units.
void decode_own(Reader& r, uint64_t count, const Block& b) {
  // Room for one more, which the loops below may read.
  b.s.units.resize((static_cast<size_t>(count) + 1) * b.d.unit_bytes());
  if (count == 0) return;
  const Mode mode = static_cast<Mode>(r.number<uint8_t>());
  decode_plain(r, mode, {b.s.units.data(), nullptr, nullptr, static_cast<size_t>(count), b.d, b.dtype, b.digits, b.s});
}

template <class T>
T unit_at(const uint8_t* units, size_t i) {
  T v;
  std::memcpy(&v, units + i * sizeof(T), sizeof(T));
  return v;
}

template <class T>
void spread(const Block& b, const uint8_t* mask) {
  size_t from = 0;
  for (size_t i = 0; i < b.n; ++i) {
    const bool some = mask[i / 8] >> (i % 8) & 1;
    const T v = some ? unit_at<T>(b.s.units.data(), from) : T{0};
    std::memcpy(b.units + i * sizeof(T), &v, sizeof(T));
    from += some;
  }
}

// The values of the rows, 0 where there is none; bit i of `has` belongs to row i.
template <class T>
struct Values {
  T common = 0;
  Bytes has;
  std::vector<T> of_rows;
};

template <class T>
Values<T> read_values(Reader& r, const Rows& rows, bool has_common, const Block& b) {
  Values<T> values;
  if (has_common) values.common = r.number<T>();
  const uint64_t count = r.varint();
  values.has = read_symbols(r, (rows.count() + 7) / 8, b);
  values.of_rows.resize(rows.count(), 0);
  uint64_t found = 0;
  for (size_t row = 0; row < values.of_rows.size(); ++row)
    found += values.has[row / 8] >> (row % 8) & 1;
  if (found != count) r.corrupt("rows with values do not match their count");
  for (size_t row = 0; row < values.of_rows.size(); ++row)
    if (values.has[row / 8] >> (row % 8) & 1) values.of_rows[row] = r.number<T>();
  return values;
}

// What the kinds of a block may be: bit k for kind k.
unsigned kinds_in(const uint8_t* kinds, size_t at, size_t n) {
  unsigned found = 0;
  for (size_t i = at; i < at + n; ++i) found |= 1u << (kinds[i / 4] >> (2 * (i % 4)) & 3);
  return found;
}

template <class T>
void decode_repeats_of(Reader& r, const Block& b) {
  const Rows rows = read_rows(r, b.n);
  const unsigned flags = r.number<uint8_t>();
  if (flags > 1) r.corrupt("flags of a block of repeats");
  const Values<T> values = read_values<T>(r, rows, flags & 1, b);
  const uint64_t count = r.varint();
  if (count > b.n) r.corrupt("more units of their own than units");
  const Bytes kinds = read_symbols(r, (b.n + 3) / 4, b);
  decode_own(r, count, b);
  uint64_t done = 0;
  rows.each([&](size_t row, size_t, size_t at, size_t n) {
    const unsigned found = kinds_in(kinds.data(), at, n);
    if (found & 4 && !(flags & 1)) r.corrupt("a common value where there is none");
    if (found & 8 && !(values.has[row / 8] >> (row % 8) & 1)) r.corrupt("the value of a row that has none");
    T choices[4] = {0, 0, values.common, values.of_rows[row]};
    for (size_t i = at; i < at + n; ++i) {
      if (done > count) r.corrupt("more units of their own than counted");
      choices[1] = unit_at<T>(b.s.units.data(), static_cast<size_t>(done));
      const unsigned kind = kinds[i / 4] >> (2 * (i % 4)) & 3;
      std::memcpy(b.units + i * sizeof(T), &choices[kind], sizeof(T));
      done += kind == 1;
    }
  });
  if (done != count) r.corrupt("units of their own do not match their count");
}

}  // namespace

void decode_repeats(Reader& r, const Block& b) {
  switch (b.d.unit_bits) {
    case 8: return decode_repeats_of<uint8_t>(r, b);
    case 16: return decode_repeats_of<uint16_t>(r, b);
    case 32: return decode_repeats_of<uint32_t>(r, b);
    default: return decode_repeats_of<uint64_t>(r, b);
  }
}

void decode_zero_mask(Reader& r, const Block& b) {
  const uint64_t count = r.varint();
  if (count < 1 || count >= b.n) r.corrupt("count of units that are not zero");
  Bytes mask = read_symbols(r, (b.n + 7) / 8, b);
  if (b.n % 8) mask.back() &= static_cast<uint8_t>((1u << (b.n % 8)) - 1);  // padding
  uint64_t ones = 0;
  for (const uint8_t byte : mask) ones += static_cast<unsigned>(__builtin_popcount(byte));
  if (ones != count) r.corrupt("zero mask does not match its count");
  decode_own(r, count, b);
  switch (b.d.unit_bits) {
    case 8: return spread<uint8_t>(b, mask.data());
    case 16: return spread<uint16_t>(b, mask.data());
    case 32: return spread<uint32_t>(b, mask.data());
    default: return spread<uint64_t>(b, mask.data());
  }
}

}  // namespace limosa
