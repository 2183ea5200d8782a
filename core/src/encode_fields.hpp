// Between the files of the lossless encoder.
#pragma once
#include <cstring>

#include "classes.hpp"
#include "limosa/chunk.hpp"

namespace limosa {

constexpr uint64_t kTableEntryBits = 7, kStreamBits = 80;  // roughly

struct FieldsPlan {
  uint64_t bits = ~uint64_t{0};
  unsigned joined = 0, zeros = 0;  // k, z
  bool is_unsigned = false;
  uint32_t window = 0;
  uint64_t escapes = 0;
  uint32_t counts[256] = {};  // of the symbols
};

// The cheapest fields without classes; `any` is the OR of all units. False if they take `most` bits or more.
bool plan_fields(FieldsPlan& plan, const uint8_t* units, size_t n, const Dtype& d, uint64_t any, uint64_t most);
// The content of a block of fields: with classes, where `rows` is not null and that is worth it. Returns the mode.
Mode append_fields(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, const FieldsPlan& plan, const Rows* rows,
                   EncodeScratch& s);

// The cheapest of raw units, fields, a palette and planes: its mode and its content.
void append_plain(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, EncodeScratch& s);
// How many units are zero, or equal to the one before.
size_t zeros_and_repeats(const uint8_t* units, size_t n, const Dtype& d);
// A block with a mask for its zeros; false if these are too few.
bool encode_zero_mask(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, EncodeScratch& s);
// A block without the values that repeat in its rows; false if these are too few.
bool encode_repeats(Bytes& out, const uint8_t* units, const Rows& rows, const Dtype& d, EncodeScratch& s);

inline unsigned trailing_zeros(uint64_t any, const Dtype& d) {
  const unsigned z = any == 0 ? 64 : static_cast<unsigned>(__builtin_ctzll(any));
  return std::min(z, d.mantissa_bits);
}

inline uint64_t load_unit(const uint8_t* p, size_t size) {
  uint64_t v = 0;
  std::memcpy(&v, p, size);
  return v;
}

}  // namespace limosa
