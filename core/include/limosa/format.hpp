// Numbers of the bitstream; the prose is in docs/format.md, section by section.
#pragma once
#include <cstddef>
#include <cstdint>

namespace limosa {

constexpr size_t kChunkUnits = 262144;

// docs/format.md 3
enum class Mode : uint8_t {
  raw = 0,
  constant = 1,
  tensor_copy = 2,
  base_copy = 3,
  fields = 4,
  palette = 5,
  zero_mask = 6,
  planes = 7,
  base_planes = 8,
  base_steps = 9,
  base_sparse = 10,
  decimal = 11,
  base_decimal = 12,
  decimal_lzma = 13,
  base_decimal_lzma = 14,
  levels = 15,
  base_levels = 16,
  base_palette = 17,
  classed_fields = 18,
  repeats = 19,
};

// docs/format.md 3.2
enum class StreamKind : uint8_t { raw = 0, constant = 1, rans32 = 2, rans1 = 3 };
constexpr unsigned kLanes = 32;
constexpr unsigned kMaxLog2Total = 12;         // one context
constexpr unsigned kMaxLog2TotalContexts = 11;  // several contexts
constexpr unsigned kMinLog2Total = 8;
constexpr uint32_t kStateLow = 1u << 16;

constexpr unsigned kMaxContexts = 16;  // docs/format.md 3.8
constexpr unsigned kWindow = 255;      // docs/format.md 3.4
constexpr unsigned kMaxJoined = 5;
constexpr unsigned kUnsigned = 128;    // docs/format.md 3.4: no unit is negative, and the plane that says so is left out
constexpr unsigned kMaxClasses = 8;    // docs/format.md 3.11
constexpr unsigned kTrellisStates = 8;
constexpr unsigned kMaxDigits = 18;  // 10^18 is exact in binary64

struct Dtype {
  unsigned unit_bits;
  unsigned exponent_bits;  // 0: not a float that the codec takes apart
  unsigned mantissa_bits;
  bool is_float() const { return exponent_bits != 0; }
  size_t unit_bytes() const { return unit_bits / 8; }
};

// docs/format.md 2.3; the place in the table is the code in the bitstream
constexpr Dtype kDtypes[] = {
    {64, 11, 52}, {32, 8, 23}, {16, 5, 10}, {16, 8, 7}, {8, 0, 0},  {8, 0, 0},  {8, 0, 0},
    {8, 0, 0},    {64, 0, 0},  {32, 0, 0},  {16, 0, 0}, {8, 0, 0},  {64, 0, 0}, {32, 0, 0},
    {16, 0, 0},   {8, 0, 0},   {8, 0, 0},   {32, 8, 23}, {8, 0, 0}, {8, 0, 0},
    {8, 0, 0},    {8, 0, 0},
};
constexpr unsigned kDtypeCount = sizeof(kDtypes) / sizeof(kDtypes[0]);
constexpr unsigned kDtypeF64 = 0, kDtypeF16 = 2, kDtypeBF16 = 3;

}  // namespace limosa
