#include <cmath>
#include <cstring>

#include "limosa/chunk.hpp"

namespace limosa {
namespace {

bool decodes_to_finite(int64_t v, double scale, const uint8_t* base, unsigned dtype) {
  uint8_t unit[8];
  const double w = static_cast<double>(v) / scale;
  if (base) add_to_unit(w, base, dtype, unit);
  else double_to_unit(w, dtype, unit);
  return std::isfinite(unit_to_double(unit, dtype));
}

}  // namespace

void encode_decimal(Bytes& out, const ChunkInput& in, EncodeScratch& s) {
  const size_t size = kDtypes[in.dtype].unit_bytes();
  const double scale = power_of_ten(in.digits);
  Bytes exceptions;
  size_t count = 0, last = 0;
  s.values.resize(in.n * 8);
  auto* values = reinterpret_cast<uint64_t*>(s.values.data());
  for (size_t i = 0; i < in.n; ++i) {
    const uint8_t* unit = in.units + i * size;
    const double w = in.base ? unit_to_double(unit, in.dtype) - unit_to_double(in.base + i * size, in.dtype)
                             : unit_to_double(unit, in.dtype);
    const double scaled = w * scale;
    const bool fits = scaled > -9223372036854775808.0 && scaled < 9223372036854775808.0;  // false for NaN
    const int64_t v = fits ? static_cast<int64_t>(scaled) : 0;
    if (fits && decodes_to_finite(v, scale, in.base ? in.base + i * size : nullptr, in.dtype)) {
      values[i] = static_cast<uint64_t>(v) << 1 ^ static_cast<uint64_t>(v >> 63);
      continue;
    }
    values[i] = 0;
    append_varint(exceptions, count == 0 ? i : i - last - 1);
    append_bytes(exceptions, unit, size);
    last = i;
    ++count;
  }
  append_block_header(out, in.base ? Mode::base_decimal : Mode::decimal, 0);
  append_varint(out, count);
  append_bytes(out, exceptions.data(), exceptions.size());
  // Narrower values make cheaper tokens to count; the stream is the same for every width.
  encode_integers(out, s.values.data(), 64, in.n, nullptr, 1, s);
}

}  // namespace limosa
