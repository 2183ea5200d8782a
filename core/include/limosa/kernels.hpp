// The inner loops, one table of them for each instruction set. They allocate nothing, check nothing and
// cannot fail: their callers do. Every table computes the same bits.
#pragma once
#include <cstddef>
#include <cstdint>

namespace limosa {

// One symbol for the rANS encoder. The quotient x / f is mulhi(x, reciprocal) >> shift, exact for every
// state that the encoder can hold (rans.hpp, reciprocal_is_exact).
struct alignas(16) EncodeSymbol {
  uint32_t limit;       // largest state that needs no renormalisation
  uint32_t reciprocal;  // ceil(2^(31+s) / f)
  uint32_t packed;      // bias | (2^B - f) << 13 | shift << 25
  uint32_t unused;
};

// Bits 0-7 symbol, 8-19 frequency, 20-31 slot - cum. One entry for each slot of each context.
using DecodeEntry = uint32_t;

// Where the rest of the units of a fields block lies: byte planes, then planes of 4, 2 and 1 bits.
struct BitPlanes {
  unsigned bits;      // r
  size_t units;       // n
  size_t bytes() const;
};

// What the trellis encoder works on, in stream order; see kernels_trellis.hpp.
struct TrellisInput {
  const int32_t* fixed;      // targets in steps / kFixedOne
  const uint8_t* classes;    // null: one class
  unsigned class_count;
  const int32_t* rates;      // kRateStride for each quantizer of each class
  int32_t most;              // errors above this, in steps / kFixedOne, are avoided at all costs
  bool by_tokens;            // parities are those of tokens, not of the levels themselves
  size_t groups;             // of 32, or of one
};
constexpr int32_t kFixedOne = 64;
constexpr int32_t kMaxFixed = 1 << 30;
constexpr unsigned kRateLevels = 64;                // |q| from here on share a rate
constexpr unsigned kRateStride = 2 * kRateLevels;   // of a quantizer: place |q| + 1; a power of two

struct Kernels {
  const char* name;

  // Decodes n symbols (a multiple of 32) with 32 lanes. `words` has 32 readable words for each 32 symbols.
  // `contexts` may be null. Returns the words used.
  size_t (*rans_decode32)(const DecodeEntry* table, unsigned log2_total, const uint8_t* contexts,
                          const uint8_t* words, uint32_t* states, uint8_t* out, size_t n);
  // The same with the contexts that the lanes' own trellises give (docs/format.md 3.11): class + class_count * quantizer.
  // `classes` may be null. `trellis` holds the 32 states; `quantizers` gets the quantizer of each symbol.
  size_t (*rans_decode32_trellis)(const DecodeEntry* table, unsigned log2_total, const uint8_t* classes,
                                  unsigned class_count, const uint8_t* words, uint32_t* states, uint8_t* trellis,
                                  uint8_t* out, uint8_t* quantizers, size_t n);
  // Encodes n symbols (a multiple of 32) from the last to the first, writing words downwards from `words_end`;
  // at least n words of room plus 8 below. Returns the new end.
  uint16_t* (*rans_encode32)(const EncodeSymbol* table, const uint8_t* contexts, const uint8_t* symbols, size_t n,
                             uint32_t* states, uint16_t* words_end);
  // 4 histograms of 2^bits bins, to be added by the caller: of (unit mod 2^(width-1)) >> (width - 1 - bits).
  void (*top_histogram)(const uint8_t* units, unsigned width, size_t n, unsigned bits, uint32_t* bins4);
  void (*byte_histogram)(const uint8_t* bytes, size_t n, uint32_t* bins4);
  // OR of all units, and OR of unit XOR first.
  void (*or_units)(const uint8_t* units, unsigned width, size_t n, uint64_t* any, uint64_t* differing);

  // units -> symbols and bit planes; `window` as in docs/format.md 3.4, `top` = E + k, `zeros` = z.
  void (*split)(const uint8_t* units, unsigned width, size_t n, unsigned top, unsigned zeros, uint32_t window,
                uint8_t* symbols, uint8_t* planes);
  // The reverse for units [first, first + n) of a block of `total`; first is a multiple of 256; symbols and units
  // start at first, planes at the block. Symbol 0 gives the top field `window`, which the caller replaces.
  void (*join)(const uint8_t* symbols, const uint8_t* planes, unsigned width, size_t first, size_t n, size_t total,
               unsigned top, unsigned zeros, uint32_t window, uint8_t* units);

  // zigzag(o(unit) - o(base)) into values (uint16_t, uint32_t or uint64_t by width; 8: uint8_t), and the
  // base's exponent fields (16 bits). Returns the number of non-zero steps. exponent = 0 bits: integers.
  size_t (*steps)(const uint8_t* units, const uint8_t* base, unsigned width, unsigned mantissa, bool is_float, size_t n,
                  uint8_t* values);
  void (*apply_steps)(const uint8_t* values, const uint8_t* base, unsigned width, bool is_float, size_t n,
                      uint8_t* units);
  // min(max(exponent - first, 0), count - 1) of each base unit.
  void (*contexts)(const uint8_t* base, unsigned width, unsigned exponent, unsigned mantissa, size_t n, unsigned first,
                   unsigned count, uint8_t* out);
  // Values of up to 32 bits from their tokens: entries hold base << 8 | extra bits of each token; tokens below `direct`
  // stand for themselves. Reads extra bits from bit *at on, 32 values at a time, and stops before values whose tokens
  // reach `invalid` and after *at has passed `end`; 32 * 8 + 8 bytes behind the end are readable. Returns the values written.
  size_t (*expand_tokens)(const uint8_t* tokens, size_t n, const uint64_t* entries, unsigned direct, unsigned invalid,
                          const uint8_t* extra, uint64_t* at, uint64_t end, unsigned width, uint8_t* values);
  void (*xor_bytes)(const uint8_t* a, const uint8_t* b, size_t n, uint8_t* out);
  void (*gather_plane)(const uint8_t* units, size_t stride, size_t n, uint8_t* out);
  void (*scatter_plane)(const uint8_t* plane, size_t stride, size_t n, uint8_t* units);

  // ---- levels (docs/format.md 3.11) ----

  // zigzag(q) -> rho; `quantizers` null: not dependent. Returns false if some |rho| reaches 2^29.
  bool (*level_integers)(const uint32_t* values, const uint8_t* quantizers, size_t n, int32_t* rho);
  // rho -> units: float dtypes by width and mantissa; `base` null: mode 15.
  void (*dequantize)(const int32_t* rho, double step, const uint8_t* base, unsigned width, unsigned mantissa, size_t n,
                     uint8_t* units);
  // Units, or their differences from the base, rounded to binary32. Returns false if some are not finite.
  bool (*level_targets)(const uint8_t* units, const uint8_t* base, unsigned width, unsigned mantissa, size_t n,
                        float* targets);
  // round(target * scale), which is at most kMaxFixed; the fixed-point numbers that the trellis works on.
  void (*to_fixed)(const float* targets, float scale, size_t n, int32_t* fixed);
  // zigzag of sign(target) * trunc(|target| * scale + offset), but 0 where |target| * scale < zero; at most kMaxFixed, too.
  void (*quantize)(const float* targets, float scale, float zero, float offset, size_t n, uint32_t* values);
  // trellis.hpp; 32 trellises side by side, then one alone.
  void (*trellis_forward[2])(const TrellisInput& in, int32_t* costs, uint16_t* decisions);
  void (*trellis_back[2])(const TrellisInput& in, const uint16_t* decisions, uint8_t* states, uint32_t* values,
                          uint8_t* contexts);
};

// The kernels in use: the best that this processor has, or what LIMOSA_SIMD or select_kernels names.
const Kernels& kernels();
const Kernels* find_kernels(const char* name);  // null: not built, or not on this processor
bool select_kernels(const char* name);
const char* const* kernel_names();  // null-terminated, those that run here

}  // namespace limosa
