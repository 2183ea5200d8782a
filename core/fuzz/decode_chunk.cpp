// Any payload: the portable and the fast kernels give the same units or the same error.
#include "input.hpp"

using namespace limosa;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < fuzz::kHead) return 0;
  const fuzz::Head head(data);
  const Bytes payload(data + fuzz::kHead, data + size);
  const Bytes base = fuzz::noise(head.bytes(), head.seed);
  fuzz::decode_with_both(payload, head, head.flags & fuzz::has_base ? base.data() : nullptr,
                         head.flags & fuzz::has_copy ? base.data() : nullptr);
  return 0;
}
