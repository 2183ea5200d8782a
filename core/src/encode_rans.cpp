#include <algorithm>
#include <cstring>

#include "limosa/rans.hpp"

namespace limosa {
namespace {

// Below this many symbols one state of 4 bytes beats 32 of them (about 64 bytes more on average).
constexpr size_t kSmall = 16384;

struct Log2Table {
  uint32_t fraction[257];  // log2(1 + i/256) in 1/65536, by repeated squaring of integers

  Log2Table() {
    for (uint32_t i = 0; i <= 256; ++i) {
      uint64_t x = (uint64_t{256 + i} << 31) / 256;  // [1, 2] in 2^-31
      uint32_t bits = 0;
      if (i == 256) {
        fraction[i] = 65536;
        continue;
      }
      for (int k = 0; k < 16; ++k) {
        x = x * x >> 31;
        bits <<= 1;
        if (x >> 32) {
          bits |= 1;
          x >>= 1;
        }
      }
      fraction[i] = bits;
    }
  }
};

const Log2Table kLog2;

// A frequency table (docs/format.md 3.2).
void append_table(Bytes& out, const uint16_t* f) {
  unsigned first = 0, last = 255;
  while (f[first] == 0) ++first;
  while (f[last] == 0) --last;
  out.push_back(static_cast<uint8_t>(first));
  out.push_back(static_cast<uint8_t>(last));
  uint64_t buffer = 0;
  unsigned filled = 0;
  const auto put = [&](uint32_t value, unsigned bits) {
    buffer |= uint64_t{value} << filled;
    for (filled += bits; filled >= 8; filled -= 8, buffer >>= 8) out.push_back(static_cast<uint8_t>(buffer));
  };
  unsigned before = 0;
  for (unsigned s = first; s <= last; ++s) {
    const unsigned length = bit_length(f[s]);
    if (length == before) put(0, 1);
    else if (length == before + 1) put(0b101, 3);
    else if (length + 1 == before) put(0b001, 3);
    else put(0b11 | length << 2, 6);
    before = length;
    if (length > 1) put(f[s] & ((1u << (length - 1)) - 1), length - 1);
  }
  if (filled) out.push_back(static_cast<uint8_t>(buffer));
}

void count(const uint8_t* symbols, const uint8_t* contexts, size_t n, unsigned context_count, std::vector<uint32_t>& bins) {
  if (context_count == 1) {
    bins.assign(4 * 256, 0);
    kernels().byte_histogram(symbols, n, bins.data());
    for (size_t s = 0; s < 256; ++s) bins[s] += bins[256 + s] + bins[512 + s] + bins[768 + s];
    return;
  }
  // Equal neighbours wait for each other, so each of four has its own table.
  const size_t table = size_t{context_count} * 256;
  bins.assign(4 * table, 0);
  uint32_t* const b = bins.data();
  const auto place = [&](size_t i) { return size_t{contexts[i]} * 256 + symbols[i]; };
  size_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (size_t k = 0; k < 4; ++k) ++b[k * table + place(i + k)];
  for (; i < n; ++i) ++b[place(i)];
  for (size_t k = 0; k < table; ++k) b[k] += b[table + k] + b[2 * table + k] + b[3 * table + k];
}

// About the bits that the symbols of one context and its table take with frequencies that sum to 2^B.
uint64_t context_bits(const uint32_t* counts, unsigned log2_total) {
  uint64_t n = 0, bits = 0, crowded = 0;
  for (unsigned s = 0; s < 256; ++s) n += counts[s];
  if (n == 0) return 0;
  const uint32_t log2_n = log2_fixed(static_cast<uint32_t>(n));
  for (unsigned s = 0; s < 256; ++s) {
    const uint64_t c = counts[s], share = (c << (log2_total + 8)) / n;  // of the frequencies, with 8 fractional bits
    if (c == 0) continue;
    if (share < 256) {  // gets a whole one, which the others pay for
      bits += c * (log2_total << 16) + (2 << 16);
      crowded += 256 - share;
    } else {
      bits += c * (log2_n - log2_fixed(static_cast<uint32_t>(c))) + ((bit_length(share >> 8) + 1) << 16);
    }
  }
  return (bits >> 16) + ((crowded * n * 369 >> 8) >> (log2_total + 8));  // 369 / 256: 1 / ln 2
}

// Few symbols do not pay for precise frequencies.
unsigned choose_log2_total(const uint32_t* counts, size_t n, unsigned context_count) {
  const unsigned most = context_count == 1 ? kMaxLog2Total : kMaxLog2TotalContexts;
  if (n >= kSmall) return most;
  unsigned best = most;
  uint64_t least = ~uint64_t{0};
  for (unsigned log2_total = kMinLog2Total; log2_total <= most; ++log2_total) {
    uint64_t bits = 0;
    for (unsigned c = 0; c < context_count; ++c) bits += context_bits(counts + size_t{c} * 256, log2_total);
    if (bits < least) {
      least = bits;
      best = log2_total;
    }
  }
  return best;
}

// Frequencies for one context: to the stream and to the encoder's table.
void build_context(Bytes& out, const uint32_t* counts, unsigned log2_total, EncodeSymbol* table) {
  uint16_t f[256] = {};
  if (std::all_of(counts, counts + 256, [](uint32_t c) { return c == 0; }))
    f[0] = static_cast<uint16_t>(1u << log2_total);
  else
    normalise(counts, log2_total, f);
  append_table(out, f);
  uint32_t cum = 0;
  for (unsigned s = 0; s < 256; ++s) {
    if (f[s]) table[s] = make_encode_symbol(f[s], cum, log2_total);
    cum += f[s];
  }
}

void append_states(Bytes& out, const uint32_t* states, unsigned lanes, const uint16_t* words, const uint16_t* words_end) {
  append_varint(out, static_cast<uint64_t>(words_end - words));
  append_bytes(out, states, lanes * sizeof(uint32_t));
  append_bytes(out, words, static_cast<size_t>(words_end - words) * sizeof(uint16_t));
}

uint16_t* encode_scalar(const EncodeSymbol* table, const uint8_t* symbols, const uint8_t* contexts, size_t from, size_t to,
                        unsigned lanes, uint32_t* states, uint16_t* words) {
  const size_t lane_mask = lanes - 1;
  for (size_t i = to; i-- > from;) {
    uint32_t& x = states[i & lane_mask];
    const EncodeSymbol& s = table[(contexts ? size_t{contexts[i]} << 8 : 0) + symbols[i]];
    if (x > s.limit) {
      *--words = static_cast<uint16_t>(x);
      x >>= 16;
    }
    const uint32_t q = static_cast<uint32_t>(uint64_t{x} * s.reciprocal >> 32) >> (s.packed >> 25);
    x += (s.packed & 0x1fff) + q * (s.packed >> 13 & 0xfff);
  }
  return words;
}

}  // namespace

uint32_t log2_fixed(uint32_t v) {
  const unsigned whole = bit_length(v) - 1;
  const uint32_t fraction = static_cast<uint32_t>((uint64_t{v} << 32 >> whole) & 0xffffffff);  // 0.32
  const uint32_t i = fraction >> 24, part = fraction >> 8 & 0xffff;
  const uint32_t a = kLog2.fraction[i], b = kLog2.fraction[i + 1];
  return (whole << 16) + a + static_cast<uint32_t>(uint64_t{b - a} * part >> 16);
}

uint64_t entropy_bits(const uint32_t* bins, size_t count) {
  uint64_t sum = 0, weighted = 0;
  for (size_t i = 0; i < count; ++i) {
    if (bins[i] == 0) continue;
    sum += bins[i];
    weighted += uint64_t{bins[i]} * log2_fixed(bins[i]);
  }
  if (sum == 0) return 0;
  const uint64_t whole = sum * log2_fixed(static_cast<uint32_t>(sum));
  return whole > weighted ? (whole - weighted) >> 16 : 0;
}

bool reciprocal_is_exact(uint32_t f, unsigned log2_total) {
  if (f == 1) return true;  // make_encode_symbol treats it apart
  const unsigned s = bit_length(f - 1);
  const uint64_t power = uint64_t{1} << (31 + s);
  const uint64_t error = ((power + f - 1) / f) * f - power;
  // The largest state is f * 2^(32-B) - 1; the quotient is exact while error * state < 2^(31+s).
  return error * (uint64_t{f} << (32 - log2_total)) <= power;
}

EncodeSymbol make_encode_symbol(uint32_t f, uint32_t cum, unsigned log2_total) {
  const uint32_t total = 1u << log2_total;
  const uint32_t limit = static_cast<uint32_t>((uint64_t{f} << (32 - log2_total)) - 1);
  // f = 1: mulhi(x, 2^32 - 1) = x - 1, and the bias makes up for the one.
  if (f == 1) return {limit, 0xffffffffu, (cum + total - 1) | (total - 1) << 13, 0};
  const unsigned s = bit_length(f - 1);
  const uint32_t reciprocal = static_cast<uint32_t>(((uint64_t{1} << (31 + s)) + f - 1) / f);
  return {limit, reciprocal, cum | (total - f) << 13 | (s - 1) << 25, 0};
}

void normalise(const uint32_t* counts, unsigned log2_total, uint16_t* frequencies) {
  const uint32_t total = 1u << log2_total;
  uint64_t sum = 0;
  for (unsigned s = 0; s < 256; ++s) sum += counts[s];
  uint32_t f[256];
  unsigned used[256], count = 0;
  int64_t spare = total;
  for (unsigned s = 0; s < 256; ++s) {
    f[s] = counts[s] ? std::max<uint32_t>(1, static_cast<uint32_t>(counts[s] * uint64_t{total} / sum)) : 0;
    if (counts[s]) used[count++] = s;
    spare -= f[s];
  }
  // One unit at a time where it gains most or costs least: d/df of c log f is about c / (f + 1/2) going up and
  // c / (f - 1/2) going down.
  const auto weight = [&](unsigned s, uint32_t twice) { return (uint64_t{counts[s]} << 24) / twice; };
  for (; spare > 0; --spare) {
    unsigned best = used[0];
    uint64_t most = 0;
    for (unsigned k = 0; k < count; ++k) {
      const uint64_t w = weight(used[k], 2 * f[used[k]] + 1);
      if (w > most) most = w, best = used[k];
    }
    ++f[best];
  }
  for (; spare < 0; ++spare) {
    unsigned best = 256;
    uint64_t least = ~uint64_t{0};
    for (unsigned k = 0; k < count; ++k) {
      if (f[used[k]] < 2) continue;
      const uint64_t w = weight(used[k], 2 * f[used[k]] - 1);
      if (w < least) least = w, best = used[k];
    }
    --f[best];
  }
  uint32_t* largest = std::max_element(f, f + 256);
  if (*largest < total && !reciprocal_is_exact(*largest, log2_total)) {
    // Only one frequency can be above half of the total, where some reciprocals are inexact; a unit or two
    // goes to the next most frequent symbol.
    uint32_t* second = largest == f ? f + 1 : f;
    for (uint32_t* p = f; p != f + 256; ++p)
      if (p != largest && *p > *second) second = p;
    while (!reciprocal_is_exact(*largest, log2_total)) {
      --*largest;
      ++*second;
    }
  }
  for (unsigned s = 0; s < 256; ++s) frequencies[s] = static_cast<uint16_t>(f[s]);
}

void encode_symbols(Bytes& out, const uint8_t* symbols, size_t n, const uint8_t* contexts, unsigned context_count,
                    EncodeScratch& scratch, const uint32_t* counts) {
  if (std::all_of(symbols, symbols + n, [&](uint8_t s) { return s == symbols[0]; })) {
    out.push_back(static_cast<uint8_t>(StreamKind::constant));
    out.push_back(symbols[0]);
    return;
  }
  if (context_count == 1) contexts = nullptr;
  const size_t start = out.size();
  if (!counts) {
    count(symbols, contexts, n, context_count, scratch.bins);
    counts = scratch.bins.data();
  }
  const unsigned log2_total = choose_log2_total(counts, n, context_count);
  const bool small = n < kSmall;
  out.push_back(static_cast<uint8_t>(small ? StreamKind::rans1 : StreamKind::rans32));
  out.push_back(static_cast<uint8_t>(log2_total));
  scratch.table.resize(size_t{context_count} * 256);
  for (unsigned c = 0; c < context_count; ++c)
    build_context(out, counts + size_t{c} * 256, log2_total, scratch.table.data() + size_t{c} * 256);

  scratch.words.resize(n + 16);
  uint16_t* const words_end = scratch.words.data() + scratch.words.size();
  uint32_t states[kLanes];
  std::fill(states, states + kLanes, kStateLow);
  const unsigned lanes = small ? 1 : kLanes;
  const size_t whole = small ? 0 : n - n % kLanes;
  uint16_t* words = encode_scalar(scratch.table.data(), symbols, contexts, whole, n, lanes, states, words_end);
  if (whole) words = kernels().rans_encode32(scratch.table.data(), contexts, symbols, whole, states, words);
  append_states(out, states, lanes, words, words_end);
  if (out.size() - start > n) {
    out.resize(start);
    out.push_back(static_cast<uint8_t>(StreamKind::raw));
    append_bytes(out, symbols, n);
  }
}

}  // namespace limosa
