// What the decoders of the modes of a block share.
#pragma once
#include <cstring>
#include <utility>

#include "classes.hpp"
#include "limosa/chunk.hpp"

namespace limosa {

constexpr size_t kPiece = 8192;  // units decoded at a time, so that what passes between the steps stays in the cache

struct Block {
  uint8_t* units;
  const uint8_t* base;
  const uint8_t* copy;
  size_t n;
  Dtype d;
  unsigned dtype;
  int digits;
  DecodeScratch& s;
};

// Units that replace what was decoded (docs/format.md 3.10); they lie in the payload.
using Exceptions = std::vector<std::pair<size_t, const uint8_t*>>;

inline Exceptions read_exceptions(Reader& r, const Block& b) {
  const uint64_t count = r.varint();
  if (count > b.n) r.corrupt("more exceptions than units");
  Exceptions exceptions;
  uint64_t place = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t gap = r.varint();
    if (gap >= b.n || place + gap >= b.n) r.corrupt("exception beyond the block");
    place += gap;
    exceptions.emplace_back(static_cast<size_t>(place++), r.take(b.d.unit_bytes()));
  }
  return exceptions;
}

inline void place_exceptions(const Exceptions& exceptions, const Block& b) {
  for (const auto& [at, unit] : exceptions) std::memcpy(b.units + at * b.d.unit_bytes(), unit, b.d.unit_bytes());
}

inline const uint8_t* need_base(Reader& r, const Block& b) {
  if (!b.base) r.corrupt("a block needs a base, and this tensor has none");
  return b.base;
}

Rows read_rows(Reader& r, size_t n);
Bytes read_symbols(Reader& r, size_t n, const Block& b);
// At least `least` and at most kMaxClasses.
unsigned read_class_count(Reader& r, unsigned least);
RowClasses read_row_classes(Reader& r, const Rows& rows, unsigned count, const Block& b);

// Raw units, fields, a palette or planes: what may stand for itself or among zeros.
void decode_plain(Reader& r, Mode mode, const Block& b);
// Zeros and repeated values beside units in full (docs/format.md 3.6, 3.15).
void decode_zero_mask(Reader& r, const Block& b);
void decode_repeats(Reader& r, const Block& b);
// Fields, with classes or without (docs/format.md 3.4, 3.14).
void decode_fields(Reader& r, const Block& b, bool classed);
// Levels, alone or against a base (docs/format.md 3.11).
void decode_levels(Reader& r, const Block& b, const uint8_t* base);

}  // namespace limosa
