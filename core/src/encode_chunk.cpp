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
    if (encode_against_base(out, in, intra_cost(in, scratch), scratch)) return;
  }
  encode_intra(out, in, scratch);
}

// Whether the lossless modes need more than twice `size` bytes, by a sample from the middle of many units.
static bool is_hopeless(const ChunkInput& in, size_t size, EncodeScratch& scratch) {
  constexpr size_t kMany = 8192, kSample = 2048;
  if (in.n < kMany) return false;
  const size_t offset = in.n / 2 * kDtypes[in.dtype].unit_bytes();
  Bytes sample;
  encode_lossless({in.units + offset, in.base ? in.base + offset : nullptr, kSample, in.dtype, -1}, sample, scratch);
  return uint64_t{sample.size()} * in.n / kSample > 2 * uint64_t{size};
}

// Levels, unless the units come without loss in as few bytes.
static void encode_lossy(const ChunkInput& in, Bytes& out, EncodeScratch& scratch) {
  const size_t bytes = in.n * kDtypes[in.dtype].unit_bytes();
  if (in.base && std::memcmp(in.units, in.base, bytes) == 0) return append_block_header(out, Mode::base_copy, 0);
  const size_t start = out.size();
  if (in.base && in.levels->book) encode_base_palette(out, in, scratch);
  else encode_levels(out, in, scratch);
  const size_t size = out.size() - start;
  if (is_hopeless(in, size, scratch)) return;
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
