#include <cstring>

#include "limosa/chunk.hpp"

namespace limosa {

void append_block_header(Bytes& out, Mode mode, size_t units) {
  out.push_back(static_cast<uint8_t>(mode));
  append_varint(out, units);
}

static void encode_lossless(const ChunkInput& in, Bytes& out, EncodeScratch& scratch) {
  const size_t bytes = in.n * kDtypes[in.dtype].unit_bytes();
  if (in.base) {
    if (std::memcmp(in.units, in.base, bytes) == 0) return append_block_header(out, Mode::base_copy, 0);
    if (encode_against_base(out, in, intra_cost(in.units, in.n, in.dtype, scratch), scratch)) return;
  }
  encode_intra(out, in.units, in.n, in.dtype, scratch);
}

// Levels, unless the units come without loss in as few bytes.
static void encode_lossy(const ChunkInput& in, Bytes& out, EncodeScratch& scratch) {
  const size_t start = out.size();
  encode_levels(out, in, scratch);
  const size_t size = out.size() - start;
  const size_t bytes = in.n * kDtypes[in.dtype].unit_bytes();
  const bool equal = in.base && std::memcmp(in.units, in.base, bytes) == 0;
  // A rough estimate is enough to leave the lossless modes alone, which seldom are as small.
  const bool hopeless = !equal && !in.base && intra_cost(in.units, in.n, in.dtype, scratch) / 16 > size;
  if (hopeless) return;
  Bytes exact;
  encode_lossless(in, exact, scratch);
  if (exact.size() > size) return;
  out.resize(start);
  append_bytes(out, exact.data(), exact.size());
}

void encode_chunk(const ChunkInput& in, Bytes& out, EncodeScratch& scratch) {
  if (in.levels && kDtypes[in.dtype].is_float()) return encode_lossy(in, out, scratch);
  const size_t start = out.size();
  encode_lossless(in, out, scratch);
  if (in.digits < 0 || !kDtypes[in.dtype].is_float()) return;
  Bytes decimal;
  encode_decimal(decimal, in, scratch);
  if (decimal.size() >= out.size() - start) return;  // exact and smaller: nothing to lose
  out.resize(start);
  append_bytes(out, decimal.data(), decimal.size());
}

}  // namespace limosa
