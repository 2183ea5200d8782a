// One chunk of a tensor to its payload and back (docs/format.md 3).
#pragma once
#include <optional>

#include "limosa/integers.hpp"

namespace limosa {

// How to code a float tensor with loss (docs/format.md 3.11).
struct LevelsRequest {
  float step;           // positive and normal; the block's step is this rounded down to 12 bits
  bool dependent;       // by a trellis; its two quantizers have a spacing of two steps each
  float lambda;         // weight of a bit against squared errors, in squares of the step
  bool adaptive;        // 3.13 in place of rANS
  bool signs_only;      // +-1 times the mean magnitude of each row, whatever the step
  bool row_scales;      // each row's step is `step` times its root mean square
  float max_error;      // 0: none; otherwise units that would miss by more are exceptions
  // Not null: a block against a base takes its differences from these 1 to 256 values, whatever the rest says.
  const std::vector<double>* book = nullptr;
};

struct ChunkInput {
  const uint8_t* units;
  const uint8_t* base;  // null: no base
  size_t n;             // units, 1 to kChunkUnits
  unsigned dtype;
  int digits;           // Representation Precision, or -1: lossless
  const LevelsRequest* levels = nullptr;  // null, or a dtype that is not float: without loss
  size_t columns = 0;       // units of a row; 0: no rows
  size_t first_column = 0;  // of the chunk's first unit
};

struct ChunkOutput {
  uint8_t* units;
  const uint8_t* base;
  const uint8_t* copy;  // the same units of the tensor that a tensor copy names; null: none was found
  size_t n;
  unsigned dtype;
  int digits;
};

// Appends the smallest payload found.
void encode_chunk(const ChunkInput& in, Bytes& out, EncodeScratch& scratch);

// Throws DecodeError. Writes all of `out.units` or throws.
void decode_chunk(const uint8_t* payload, size_t size, const ChunkOutput& out, DecodeScratch& scratch);

// One block of a payload as `inspect` shows it.
struct BlockInfo {
  Mode mode;
  size_t units, bytes;
};
// Decodes the payload and reports its blocks.
void inspect_chunk(const uint8_t* payload, size_t size, const ChunkOutput& out, DecodeScratch& scratch,
                   std::vector<BlockInfo>& blocks);

// How far b is from a: sums of a^2 and of (a - b)^2, and the largest |a - b|, where both are finite. Float dtypes only.
struct Distortion {
  double signal, noise, largest;
};
Distortion distortion(const uint8_t* a, const uint8_t* b, unsigned dtype, size_t n);

// ---- between the encode_*.cpp files ----

void append_block_header(Bytes& out, Mode mode, size_t units);

// Blocks without a base for all units: segments, then the cheapest mode for each.
void encode_intra(Bytes& out, const ChunkInput& in, EncodeScratch& scratch);
// Bits that encode_intra needs, roughly.
uint64_t intra_cost(const ChunkInput& in, EncodeScratch& scratch);

// One block against the base, if that takes fewer than `most` bits.
bool encode_against_base(Bytes& out, const ChunkInput& in, uint64_t most, EncodeScratch& scratch);
void encode_decimal(Bytes& out, const ChunkInput& in, EncodeScratch& scratch);
// Levels as in.levels asks for.
void encode_levels(Bytes& out, const ChunkInput& in, EncodeScratch& scratch);
// Differences from in.base, which is there, by in.levels->book.
void encode_base_palette(Bytes& out, const ChunkInput& in, EncodeScratch& scratch);
void append_planes(Bytes& out, const uint8_t* units, size_t stride, size_t n, EncodeScratch& scratch);

// ---- shared by both directions: conversions with one rounding (docs/format.md 3.10) ----

double unit_to_double(const uint8_t* unit, unsigned dtype);
void double_to_unit(double v, unsigned dtype, uint8_t* unit);
double power_of_ten(int digits);
// Base unit plus v in the arithmetic of the dtype.
void add_to_unit(double v, const uint8_t* base, unsigned dtype, uint8_t* unit);

}  // namespace limosa
