// Adaptive levels (docs/format.md 3.13): a binary arithmetic code whose probabilities follow the levels.
#pragma once
#include "limosa/rans.hpp"

namespace limosa {

constexpr unsigned kMaxLevelBits = 29;  // |level| < 2^29

// Appends n levels (at least 1), a part of a matrix with `columns` of them a row; the first is in column
// `first_column`. `dependent`: they walk the trellis of 3.11 from state 0. Uses `scratch.bins`.
void encode_adaptive(Bytes& out, const int32_t* levels, size_t n, size_t columns, size_t first_column, bool dependent,
                     EncodeScratch& scratch);
// Writes all n levels or throws DecodeError. Uses `scratch.extra`.
void decode_adaptive(Reader& reader, int32_t* levels, size_t n, size_t columns, size_t first_column, bool dependent,
                     DecodeScratch& scratch);

}  // namespace limosa
