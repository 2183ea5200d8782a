// Any payload: the portable and the fast kernels give the same units or the same error.
#include "input.hpp"

using namespace limosa;

namespace {

struct Outcome {
  int error = -1;  // kind
  size_t byte = 0;
  Bytes units;
};

Outcome decode(const char* kernels, const Bytes& payload, const fuzz::Head& head, const uint8_t* base, const uint8_t* copy) {
  fuzz::require(select_kernels(kernels));
  Outcome o;
  DecodeScratch scratch;
  o.units.assign(head.bytes(), 0);
  try {
    decode_chunk(payload.data(), payload.size(), {o.units.data(), base, copy, head.n, head.dtype, head.digits}, scratch);
  } catch (const DecodeError& e) {
    o.error = e.kind;
    o.byte = e.byte;
    o.units.clear();  // what was written before is of no use to anyone
  }
  return o;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < fuzz::kHead) return 0;
  const fuzz::Head head(data);
  const Bytes payload(data + fuzz::kHead, data + size);  // of its own, so that a step outside is seen
  const Bytes base = fuzz::noise(head.bytes(), head.seed);
  const uint8_t* given = head.flags & 1 ? base.data() : nullptr;
  const uint8_t* copy = head.flags & 2 ? base.data() : nullptr;
  const Outcome a = decode("scalar", payload, head, given, copy);
  const Outcome b = decode(fuzz::other_kernels(head.kernels), payload, head, given, copy);
  fuzz::require(a.error == b.error && a.byte == b.byte && a.units == b.units);
  return 0;
}
