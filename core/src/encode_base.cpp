#include <algorithm>
#include <cstring>

#include "limosa/chunk.hpp"

namespace limosa {
namespace {

// Contexts are worth their tables from about this many units on; below, all counts are tried.
constexpr size_t kManyUnits = 32768;
// A difference this sparse is tried as positions and values.
constexpr size_t kSparseShare = 16;

struct StepsPlan {
  unsigned contexts = 1, first = 0;
  uint64_t bits = 0;
};

// The exponent from which on contexts begin: all but a thousandth of the base lies below the last one.
unsigned first_exponent(const uint8_t* base, size_t n, const Dtype& d, unsigned contexts, EncodeScratch& s) {
  const size_t bins = size_t{1} << d.exponent_bits;
  s.bins.assign(4 * bins, 0);
  kernels().top_histogram(base, d.unit_bits, n, d.exponent_bits, s.bins.data());
  size_t above = 0, e = bins;
  while (e > 0) {
    --e;
    for (size_t k = 0; k < 4; ++k) above += s.bins[k * bins + e];
    if (above > n / 1024) break;
  }
  return e + 1 > contexts ? static_cast<unsigned>(e + 1 - contexts) : 0;
}

void fill_contexts(const uint8_t* base, size_t n, const Dtype& d, const StepsPlan& plan, EncodeScratch& s) {
  s.contexts.resize(n);
  kernels().contexts(base, d.unit_bits, d.exponent_bits, d.mantissa_bits, n, plan.first, plan.contexts,
                     s.contexts.data());
}

StepsPlan plan_steps(const uint8_t* values, const uint8_t* base, size_t n, const Dtype& d, EncodeScratch& s) {
  StepsPlan best;
  for (const unsigned contexts : {16u, 4u, 1u}) {
    if (contexts > 1 && !d.is_float()) continue;
    StepsPlan plan{contexts, 0, 0};
    if (contexts > 1) {
      plan.first = first_exponent(base, n, d, contexts, s);
      fill_contexts(base, n, d, plan, s);
    }
    plan.bits = integers_cost(values, d.unit_bits, n, s.contexts.data(), contexts, s);
    if (best.bits == 0 || plan.bits < best.bits) best = plan;
    if (contexts == 16 && n >= kManyUnits) break;
  }
  return best;
}

void append_steps(Bytes& out, const uint8_t* values, const uint8_t* base, size_t n, const Dtype& d, const StepsPlan& plan,
                  EncodeScratch& s) {
  if (plan.contexts > 1) fill_contexts(base, n, d, plan, s);
  out.push_back(static_cast<uint8_t>(plan.contexts));
  append(out, static_cast<uint16_t>(plan.first));
  encode_integers(out, values, d.unit_bits, n, s.contexts.data(), plan.contexts, s);
}

template <class T>
void collect(const uint8_t* values, const uint8_t* base, size_t n, Bytes& gaps, Bytes& changed, Bytes& changed_base) {
  uint32_t gap = 0;
  for (size_t i = 0; i < n; ++i) {
    T v;
    std::memcpy(&v, values + i * sizeof(T), sizeof(T));
    if (v == 0) {
      ++gap;
      continue;
    }
    append(gaps, gap);
    append_bytes(changed, values + i * sizeof(T), sizeof(T));
    append_bytes(changed_base, base + i * sizeof(T), sizeof(T));
    gap = 0;
  }
}

void append_sparse(Bytes& out, const ChunkInput& in, size_t count, EncodeScratch& s) {
  const Dtype& d = kDtypes[in.dtype];
  Bytes gaps, changed, base;
  if (d.unit_bits == 8) collect<uint8_t>(s.values.data(), in.base, in.n, gaps, changed, base);
  else if (d.unit_bits == 16) collect<uint16_t>(s.values.data(), in.base, in.n, gaps, changed, base);
  else if (d.unit_bits == 32) collect<uint32_t>(s.values.data(), in.base, in.n, gaps, changed, base);
  else collect<uint64_t>(s.values.data(), in.base, in.n, gaps, changed, base);
  append_block_header(out, Mode::base_sparse, 0);
  append_varint(out, count);
  encode_integers(out, gaps.data(), 32, count, nullptr, 1, s);
  const StepsPlan plan = plan_steps(changed.data(), base.data(), count, d, s);
  append_steps(out, changed.data(), base.data(), count, d, plan, s);
}

// Bits of the byte planes of units XOR base, from their histograms.
uint64_t planes_cost(const ChunkInput& in, EncodeScratch& s) {
  const Dtype& d = kDtypes[in.dtype];
  const size_t bytes = in.n * d.unit_bytes();
  s.units.resize(bytes);
  kernels().xor_bytes(in.units, in.base, bytes, s.units.data());
  uint64_t bits = 0;
  s.mask.resize(in.n);
  for (size_t p = 0; p < d.unit_bytes(); ++p) {
    kernels().gather_plane(s.units.data() + p, d.unit_bytes(), in.n, s.mask.data());
    uint32_t bins[1024] = {};
    kernels().byte_histogram(s.mask.data(), in.n, bins);
    unsigned used = 0;
    for (size_t k = 0; k < 256; ++k) {
      bins[k] += bins[256 + k] + bins[512 + k] + bins[768 + k];
      used += bins[k] != 0;
    }
    bits += std::min<uint64_t>(entropy_bits(bins, 256) + used * 9 + 64, in.n * 8) + 8;
  }
  return bits;
}

}  // namespace

bool encode_against_base(Bytes& out, const ChunkInput& in, uint64_t most, EncodeScratch& s) {
  const Dtype& d = kDtypes[in.dtype];
  s.values.resize(in.n * d.unit_bytes());
  const size_t changed = kernels().steps(in.units, in.base, d.unit_bits, d.mantissa_bits, d.is_float(), in.n,
                                         s.values.data());
  const size_t start = out.size();
  const StepsPlan plan = plan_steps(s.values.data(), in.base, in.n, d, s);
  if (changed * kSparseShare <= in.n) {
    append_sparse(out, in, changed, s);
    if ((out.size() - start) * 8 <= std::min(plan.bits, most)) return true;
    out.resize(start);
  }
  // XOR planes win only where neighbouring values are not near in the sense of the dtype, or where almost
  // nothing is gained at all; that look is not free, so it is taken only then.
  const bool try_planes = !d.is_float() || plan.bits > most / 10 * 9;
  const uint64_t planes = try_planes ? planes_cost(in, s) : ~uint64_t{0};
  if (std::min(plan.bits, planes) >= most) return false;
  if (planes < plan.bits) {
    append_block_header(out, Mode::base_planes, 0);
    append_planes(out, s.units.data(), d.unit_bytes(), in.n, s);
  } else {
    append_block_header(out, Mode::base_steps, 0);
    append_steps(out, s.values.data(), in.base, in.n, d, plan, s);
  }
  return true;
}

}  // namespace limosa
