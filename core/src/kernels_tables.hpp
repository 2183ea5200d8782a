// Shuffles that put the 16-bit words of a rANS renormalisation at the lanes that need them, by lane mask.
#pragma once
#include <cstdint>

namespace limosa {

struct ShuffleTables {
  uint8_t spread[256][8];    // decode: lane -> index of its word among the next 8
  uint8_t compact[256][16];  // encode: byte shuffle that moves the words of the set lanes to the upper end
};

extern const ShuffleTables kShuffles;

}  // namespace limosa
