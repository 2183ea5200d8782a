// CRC-32C against published values, and the path of this processor against the portable one.
#include "check.hpp"
#include "limosa/crc32c.hpp"

using namespace limosa;
using testing::Random;

namespace {

uint32_t both(const Bytes& b) {
  const uint32_t fast = crc32c(b.data(), b.size());
  CHECK(fast == crc32c_portable(b.data(), b.size()));
  return fast;
}

void known_values() {
  const std::string digits = "123456789";
  CHECK(both(Bytes(digits.begin(), digits.end())) == 0xE3069283u);
  CHECK(both({}) == 0);
  // RFC 3720 B.4
  CHECK(both(Bytes(32, 0)) == 0x8A9136AAu);
  CHECK(both(Bytes(32, 0xff)) == 0x62A8AB43u);
  Bytes up(32), down(32);
  for (size_t i = 0; i < 32; ++i) up[i] = down[31 - i] = static_cast<uint8_t>(i);
  CHECK(both(up) == 0x46DD794Eu);
  CHECK(both(down) == 0x113FDB5Cu);
}

// One bit at a time, from the definition.
uint32_t slow(const Bytes& b) {
  uint32_t c = ~0u;
  for (const uint8_t v : b) {
    c ^= v;
    for (int k = 0; k < 8; ++k) c = c >> 1 ^ (c & 1 ? 0x82F63B78u : 0);
  }
  return ~c;
}

void all_sizes() {
  Random random(1);
  for (size_t n = 0; n < 300; ++n) {
    const Bytes b = random.bytes(n);
    CHECK_CASE(both(b) == slow(b), "%zu bytes", n);
  }
  // Around the three lanes of 2048 bytes.
  for (const size_t n : {6143u, 6144u, 6145u, 12287u, 12288u, 12295u, 100000u}) {
    const Bytes b = random.bytes(n);
    CHECK_CASE(both(b) == slow(b), "%zu bytes", n);
  }
}

void pieces_and_places() {
  Random random(2);
  const Bytes b = random.bytes(20000);
  const uint32_t whole = crc32c(b.data(), b.size());
  for (int i = 0; i < 100; ++i) {
    const size_t cut = random.below(b.size() + 1);
    CHECK(crc32c(b.data() + cut, b.size() - cut, crc32c(b.data(), cut)) == whole);
    CHECK(crc32c_portable(b.data() + cut, b.size() - cut, crc32c_portable(b.data(), cut)) == whole);
  }
  for (size_t offset = 0; offset < 16; ++offset) {
    const Bytes moved(b.begin() + static_cast<long>(offset), b.end());
    CHECK(crc32c(b.data() + offset, b.size() - offset) == both(moved));
  }
}

}  // namespace

int main() {
  known_values();
  all_sizes();
  pieces_and_places();
}
