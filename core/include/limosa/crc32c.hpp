// CRC-32C (docs/format.md 1): finds every burst of up to 32 damaged bits in a chunk.
#pragma once
#include <cstddef>
#include <cstdint>

namespace limosa {

// `crc` continues an earlier call; the result is the finished checksum each time.
uint32_t crc32c(const uint8_t* data, size_t size, uint32_t crc = 0);
// The portable path, for tests.
uint32_t crc32c_portable(const uint8_t* data, size_t size, uint32_t crc = 0);

}  // namespace limosa
