// The trellis of dependent quantization (docs/format.md 3.11). Plain constants and functions of its own in every file that
// includes it: the kernels may share no inline code across instruction sets.
#pragma once
#include <cstdint>

namespace limosa {
namespace {

// The state after a level, at place state + 8 * parity.
constexpr uint8_t kNextState[16] = {0, 7, 1, 6, 2, 5, 3, 4, 2, 5, 3, 4, 0, 7, 1, 6};

constexpr unsigned token_parity(unsigned token) { return ((token + 1) >> 1) & 1; }

}  // namespace
}  // namespace limosa
