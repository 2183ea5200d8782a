// Any units: all kernels encode them to the same payload, and lossless payloads give them back.
#include "input.hpp"

using namespace limosa;

namespace {

// The rest of the input over and over; by the flags it drifts, so that long inputs are not periodic only.
Bytes make_units(const fuzz::Head& head, size_t n, const uint8_t* data, size_t size) {
  const size_t width = kDtypes[head.dtype].unit_bytes();
  Bytes units(n * width);
  if (size == 0) return units;
  for (size_t i = 0; i < units.size(); ++i) units[i] = data[i % size];
  if (head.flags & 8)
    for (size_t i = 0; i < n; ++i) units[i * width] = static_cast<uint8_t>(units[i * width] + i / size);
  return units;
}

Bytes make_base(const fuzz::Head& head, const Bytes& units) {
  const unsigned kind = head.flags >> 1 & 3;
  if (kind == 0) return units;
  Bytes base = fuzz::noise(units.size(), head.seed);
  if (kind == 1) return base;
  for (size_t i = 0; i < base.size(); ++i) {
    const bool change = kind == 2 ? i % 97 == head.seed % 97 : i % kDtypes[head.dtype].unit_bytes() == 0;
    base[i] = static_cast<uint8_t>(units[i] + (change ? base[i] & 15 : 0));
  }
  return base;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < fuzz::kHead) return 0;
  const fuzz::Head head(data);
  const size_t n = head.flags & 16 ? head.n * 8 : head.n;  // enough for streams of 32 lanes
  const Bytes units = make_units(head, n, data + fuzz::kHead, size - fuzz::kHead);
  const Bytes base = make_base(head, units);
  const uint8_t* given = head.flags & 1 ? base.data() : nullptr;
  const int digits = head.flags & 32 ? head.digits : -1;

  Bytes payload, decoded;
  for (const char* name : {"scalar", fuzz::other_kernels(head.kernels)}) {
    fuzz::require(select_kernels(name));
    EncodeScratch encode_scratch;
    DecodeScratch decode_scratch;
    Bytes p, out(units.size());
    encode_chunk({units.data(), given, n, head.dtype, digits}, p, encode_scratch);
    decode_chunk(p.data(), p.size(), {out.data(), given, nullptr, n, head.dtype, digits}, decode_scratch);
    if (digits < 0) fuzz::require(out == units);
    if (payload.empty()) {
      payload = p;
      decoded = out;
    }
    fuzz::require(p == payload && out == decoded);
  }
  return 0;
}
