// Any units: all kernels encode them to the same payload, and lossless payloads give them back.
#include "input.hpp"

using namespace limosa;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < fuzz::kHead) return 0;
  const fuzz::Head head(data);
  const Bytes units = fuzz::make_units(head, data + fuzz::kHead, size - fuzz::kHead);
  const Bytes base = fuzz::make_base(head, units);
  const uint8_t* given = head.flags & fuzz::has_base ? base.data() : nullptr;
  const Bytes payload = fuzz::encode("scalar", units, head, given);
  fuzz::require(payload == fuzz::encode(fuzz::other_kernels(head.kernels), units, head, given));
  const fuzz::Outcome back = fuzz::decode_with_both(payload, head, given, nullptr);
  fuzz::require(back.error == -1);
  if (head.lossless()) fuzz::require(back.units == units);
  fuzz::require(fuzz::keeps_promise(head, units, back.units));
  return 0;
}
