// Payloads of the encoder, damaged: whatever the format, this starts from valid ones. The input is a head, a byte with a
// number of edits, the edits (place, 2 bytes; what to do, 1 byte), and the units.
#include "input.hpp"

using namespace limosa;

namespace {

constexpr size_t kMostEdits = 8, kEdit = 3;

void edit(Bytes& payload, const uint8_t* e) {
  const size_t from = e[0] | size_t{e[1]} << 8;
  const size_t at = (from & 0x8000 ? from % payload.size() : from % std::min<size_t>(payload.size(), 256));
  const unsigned value = e[2] & 63;
  switch (e[2] >> 6) {
    case 0: payload[at] = static_cast<uint8_t>(payload[at] ^ 1u << (value & 7)); break;
    case 1: payload[at] = static_cast<uint8_t>(value & 32 ? ~(value & 31) : value); break;
    case 2: payload.erase(payload.begin() + static_cast<long>(at)); break;
    default: payload.insert(payload.begin() + static_cast<long>(at), static_cast<uint8_t>(4 * value)); break;
  }
  if (payload.empty()) payload.push_back(0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < fuzz::kHead + 1 + kMostEdits * kEdit) return 0;
  const fuzz::Head head(data);
  const uint8_t* edits = data + fuzz::kHead;
  const size_t used = fuzz::kHead + 1 + kMostEdits * kEdit;
  const Bytes units = fuzz::make_units(head, data + used, size - used);
  const Bytes base = fuzz::make_base(head, units);
  const uint8_t* given = head.flags & fuzz::has_base ? base.data() : nullptr;
  Bytes payload = fuzz::encode(fuzz::other_kernels(head.kernels), units, head, given);
  const size_t count = edits[0] % (kMostEdits + 1);
  for (size_t i = 0; i < count; ++i) edit(payload, edits + 1 + i * kEdit);
  const fuzz::Outcome back = fuzz::decode_with_both(payload, head, given, nullptr);
  if (count == 0) fuzz::require(back.error == -1 && (!head.lossless() || back.units == units));
  return 0;
}
