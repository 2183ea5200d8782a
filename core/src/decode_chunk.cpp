// Payload to units (docs/format.md 3). Every count is checked against the units of the chunk, which the caller
// has allocated, before anything is written.
#include <algorithm>
#include <cstring>

#include "decode_block.hpp"

namespace limosa {
namespace {

void decode_constant(Reader& r, const Block& b) {
  const size_t size = b.d.unit_bytes();
  const uint8_t* unit = r.take(size);
  for (size_t i = 0; i < b.n; ++i) std::memcpy(b.units + i * size, unit, size);
}

// The exponent field is all ones.
bool is_infinite_or_nan(const uint8_t* unit, const Dtype& d) {
  uint64_t bits = 0;
  std::memcpy(&bits, unit, d.unit_bytes());
  const uint64_t infinity = ((uint64_t{1} << d.exponent_bits) - 1) << d.mantissa_bits;
  return (bits & infinity) == infinity;
}

void decode_palette(Reader& r, const Block& b, bool finite = false) {
  const size_t size = b.d.unit_bytes(), count = size_t{r.number<uint8_t>()} + 1;
  const uint8_t* values = r.take(count * size);
  uint64_t table[256] = {};
  for (size_t k = 0; k < count; ++k) {
    std::memcpy(&table[k], values + k * size, size);
    if (k && table[k] <= table[k - 1]) r.corrupt("palette is not ascending");
    if (finite && is_infinite_or_nan(values + k * size, b.d)) r.corrupt("palette of differences that are not finite");
  }
  SymbolDecoder symbols;
  symbols.begin(r, b.n, 1, b.s.table);
  b.s.symbols.resize(std::max(b.s.symbols.size(), std::min(b.n, kPiece)));
  for (size_t at = 0; at < b.n; at += kPiece) {
    const size_t n = std::min(kPiece, b.n - at);
    symbols.next(b.s.symbols.data(), nullptr, n);
    for (size_t i = 0; i < n; ++i) {
      const uint8_t k = b.s.symbols[i];
      if (k >= count) r.corrupt("palette index out of range");
      std::memcpy(b.units + (at + i) * size, &table[k], size);
    }
  }
  symbols.finish();
}

void decode_base_palette(Reader& r, const Block& b) {
  if (!b.d.is_float()) r.corrupt("palette of differences in a tensor that is not float");
  const uint8_t* base = need_base(r, b);
  const size_t size = b.d.unit_bytes();
  const Exceptions exceptions = read_exceptions(r, b);
  decode_palette(r, b, true);
  for (size_t i = 0; i < b.n; ++i) {
    uint8_t* unit = b.units + i * size;
    uint64_t bits = 0;
    std::memcpy(&bits, unit, size);
    if (bits == 0 || is_infinite_or_nan(base + i * size, b.d)) std::memcpy(unit, base + i * size, size);
    else double_to_unit(unit_to_double(base + i * size, b.dtype) + unit_to_double(unit, b.dtype), b.dtype, unit);
  }
  place_exceptions(exceptions, b);
}

void decode_planes(Reader& r, const Block& b, const uint8_t* base) {
  const size_t size = b.d.unit_bytes();
  b.s.symbols.resize(std::max(b.s.symbols.size(), b.n));
  for (size_t p = 0; p < size; ++p) {
    SymbolDecoder symbols;
    symbols.begin(r, b.n, 1, b.s.table);
    symbols.next(b.s.symbols.data(), nullptr, b.n);
    symbols.finish();
    kernels().scatter_plane(b.s.symbols.data(), size, b.n, b.units + p);
  }
  if (base) kernels().xor_bytes(b.units, base, b.n * size, b.units);
}

// The head of steps: contexts and their first exponent, then the stream.
struct StepsDecoder {
  unsigned contexts = 1, first = 0;
  IntegerDecoder values;

  void begin(Reader& r, const Block& b, size_t n) {
    contexts = r.number<uint8_t>();
    first = r.number<uint16_t>();
    if (contexts < 1 || contexts > kMaxContexts || (contexts > 1 && !b.d.is_float()))
      r.corrupt("number of contexts " + std::to_string(contexts));
    values.begin(r, n, b.d.unit_bits, contexts, b.s, b.s.second_table);
  }

  // `n` steps applied to `base` into `units`, which may not overlap scratch.
  void next(const Block& b, const uint8_t* base, uint8_t* units, size_t n) {
    if (contexts > 1) {
      b.s.contexts.resize(std::max(b.s.contexts.size(), n));
      kernels().contexts(base, b.d.unit_bits, b.d.exponent_bits, b.d.mantissa_bits, n, first, contexts,
                         b.s.contexts.data());
    }
    b.s.values.resize(std::max(b.s.values.size(), n * b.d.unit_bytes()));
    values.next(b.s.values.data(), b.s.contexts.data(), n);
    kernels().apply_steps(b.s.values.data(), base, b.d.unit_bits, b.d.is_float(), n, units);
  }
};

void decode_steps(Reader& r, const Block& b) {
  const uint8_t* base = need_base(r, b);
  const size_t size = b.d.unit_bytes();
  StepsDecoder steps;
  steps.begin(r, b, b.n);
  for (size_t at = 0; at < b.n; at += kPiece)
    steps.next(b, base + at * size, b.units + at * size, std::min(kPiece, b.n - at));
  steps.values.finish();
}

void decode_sparse(Reader& r, const Block& b) {
  const uint8_t* base = need_base(r, b);
  const size_t size = b.d.unit_bytes();
  const uint64_t count = r.varint();
  if (count < 1 || count >= b.n) r.corrupt("count of changed units");
  const size_t n = static_cast<size_t>(count);
  Bytes gaps(n * 4);
  IntegerDecoder decoder;
  decoder.begin(r, n, 32, 1, b.s, b.s.table);
  decoder.next(gaps.data(), nullptr, n);
  decoder.finish();
  auto* places = reinterpret_cast<uint32_t*>(gaps.data());
  uint64_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    at += places[i];
    if (at >= b.n) r.corrupt("position of a changed unit beyond the block");
    places[i] = static_cast<uint32_t>(at++);
  }
  Bytes from(n * size), to(n * size);
  for (size_t i = 0; i < n; ++i) std::memcpy(from.data() + i * size, base + places[i] * size, size);
  StepsDecoder steps;
  steps.begin(r, b, n);
  steps.next(b, from.data(), to.data(), n);
  steps.values.finish();
  std::memcpy(b.units, base, b.n * size);
  for (size_t i = 0; i < n; ++i) std::memcpy(b.units + places[i] * size, to.data() + i * size, size);
}

// The sum with a NaN depends on the machine, so such units must be exceptions.
void need_finite_base(Reader& r, const Block& b, const uint8_t* base, const Exceptions& exceptions) {
  auto next = exceptions.begin();
  for (size_t i = 0; i < b.n; ++i) {
    while (next != exceptions.end() && next->first < i) ++next;
    const bool is_exception = next != exceptions.end() && next->first == i;
    if (!is_exception && is_infinite_or_nan(base + i * b.d.unit_bytes(), b.d))
      r.corrupt("difference from a base that is not finite");
  }
}

void decode_decimal(Reader& r, const Block& b, const uint8_t* base) {
  if (!b.d.is_float() || b.digits < 0) r.corrupt("decimal block in a tensor that is not coded so");
  const size_t size = b.d.unit_bytes();
  const Exceptions exceptions = read_exceptions(r, b);
  if (base) need_finite_base(r, b, base, exceptions);
  const double divisor = power_of_ten(b.digits);
  IntegerDecoder decoder;
  decoder.begin(r, b.n, 64, 1, b.s, b.s.table);
  b.s.values.resize(std::max(b.s.values.size(), std::min(kPiece, b.n) * 8));
  const auto* values = reinterpret_cast<const uint64_t*>(b.s.values.data());
  for (size_t at = 0; at < b.n; at += kPiece) {
    const size_t n = std::min(kPiece, b.n - at);
    decoder.next(b.s.values.data(), nullptr, n);
    for (size_t i = 0; i < n; ++i) {
      const auto v = static_cast<int64_t>(values[i] >> 1 ^ (~(values[i] & 1) + 1));
      const double w = static_cast<double>(v) / divisor;
      uint8_t* unit = b.units + (at + i) * size;
      if (base) add_to_unit(w, base + (at + i) * size, b.dtype, unit);
      else double_to_unit(w, b.dtype, unit);
    }
  }
  decoder.finish();
  place_exceptions(exceptions, b);
}

}  // namespace

void decode_plain(Reader& r, Mode mode, const Block& b) {
  switch (mode) {
    case Mode::raw:
      std::memcpy(b.units, r.take(b.n * b.d.unit_bytes()), b.n * b.d.unit_bytes());
      return;
    case Mode::fields: return decode_fields(r, b, false);
    case Mode::palette: return decode_palette(r, b);
    case Mode::planes: return decode_planes(r, b, nullptr);
    default: r.corrupt("block mode " + std::to_string(static_cast<unsigned>(mode)) + " for units among zeros");
  }
}

namespace {

void decode_block(Reader& r, uint8_t mode, const Block& b) {
  const size_t bytes = b.n * b.d.unit_bytes();
  switch (static_cast<Mode>(mode)) {
    case Mode::constant: return decode_constant(r, b);
    case Mode::tensor_copy:
      r.varint();  // the number; the caller found the tensor
      if (!b.copy) r.corrupt("tensor copy without its tensor");
      std::memcpy(b.units, b.copy, bytes);
      return;
    case Mode::base_copy:
      std::memcpy(b.units, need_base(r, b), bytes);
      return;
    case Mode::zero_mask: return decode_zero_mask(r, b);
    case Mode::base_planes: return decode_planes(r, b, need_base(r, b));
    case Mode::base_steps: return decode_steps(r, b);
    case Mode::base_sparse: return decode_sparse(r, b);
    case Mode::decimal: return decode_decimal(r, b, nullptr);
    case Mode::base_decimal: return decode_decimal(r, b, need_base(r, b));
    case Mode::levels: return decode_levels(r, b, nullptr);
    case Mode::base_levels: return decode_levels(r, b, need_base(r, b));
    case Mode::base_palette: return decode_base_palette(r, b);
    case Mode::classed_fields: return decode_fields(r, b, true);
    case Mode::repeats: return decode_repeats(r, b);
    case Mode::raw:
    case Mode::fields:
    case Mode::palette:
    case Mode::planes: return decode_plain(r, static_cast<Mode>(mode), b);
    default: r.corrupt("block mode " + std::to_string(mode));
  }
}

void decode_blocks(const uint8_t* payload, size_t size, const ChunkOutput& out, DecodeScratch& scratch,
                   std::vector<BlockInfo>* blocks) {
  Reader r(payload, size);
  const Dtype& d = kDtypes[out.dtype];
  size_t at = 0;
  while (at < out.n) {
    const size_t start = r.offset();
    const uint8_t mode = r.number<uint8_t>();
    const uint64_t count = r.varint();
    if (count > out.n - at) r.corrupt("block of " + std::to_string(count) + " units, more than remain");
    const size_t n = count ? static_cast<size_t>(count) : out.n - at, offset = at * d.unit_bytes();
    decode_block(r, mode,
                 {out.units + offset, out.base ? out.base + offset : nullptr, out.copy ? out.copy + offset : nullptr, n, d,
                  out.dtype, out.digits, scratch});
    if (blocks) blocks->push_back({static_cast<Mode>(mode), n, r.offset() - start});
    at += n;
  }
  if (r.left()) r.corrupt(std::to_string(r.left()) + " bytes behind the last block");
}

}  // namespace

void decode_chunk(const uint8_t* payload, size_t size, const ChunkOutput& out, DecodeScratch& scratch) {
  decode_blocks(payload, size, out, scratch, nullptr);
}

void inspect_chunk(const uint8_t* payload, size_t size, const ChunkOutput& out, DecodeScratch& scratch,
                   std::vector<BlockInfo>& blocks) {
  decode_blocks(payload, size, out, scratch, &blocks);
}

}  // namespace limosa
