#include <cmath>
#include <cstring>

#include "limosa/chunk.hpp"

namespace limosa {

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
    const bool base_finite = !in.base || std::isfinite(unit_to_double(in.base + i * size, in.dtype));
    if (fits && base_finite) {
      const int64_t v = static_cast<int64_t>(scaled);
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
