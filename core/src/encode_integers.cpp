#include <algorithm>
#include <cstring>

#include "limosa/integers.hpp"

namespace limosa {
namespace {

// The finest shape that gives at most 256 tokens for the width; coarser ones merge its tokens.
TokenShape finest(unsigned width) { return width <= 32 ? kFinest32 : TokenShape{7, 1}; }

constexpr TokenShape kShapes[] = {{7, 2}, {7, 1}, {5, 2}, {5, 1}, {4, 2}, {3, 1}, {2, 1}};

// A table costs about this much for each token that occurs, in bits.
constexpr uint64_t kTableEntryBits = 9;

constexpr size_t kPiece = 32;  // values looked at together

template <class T>
void tokens_of(const T* v, size_t n, TokenShape shape, uint8_t* out) {
  unsigned extra;
  for (size_t at = 0; at < n; at += kPiece) {
    const size_t end = std::min(at + kPiece, n);
    T all = 0;
    for (size_t i = at; i < end; ++i) all = static_cast<T>(all | v[i]);
    if (all < (1u << shape.split))
      for (size_t i = at; i < end; ++i) out[i] = static_cast<uint8_t>(v[i]);
    else
      for (size_t i = at; i < end; ++i) out[i] = static_cast<uint8_t>(token_of(v[i], shape, &extra));
  }
}

void tokens(const uint8_t* values, unsigned width, size_t n, TokenShape shape, uint8_t* out) {
  if (width == 8) return tokens_of(values, n, shape, out);
  if (width == 16) return tokens_of(reinterpret_cast<const uint16_t*>(values), n, shape, out);
  if (width == 32) return tokens_of(reinterpret_cast<const uint32_t*>(values), n, shape, out);
  tokens_of(reinterpret_cast<const uint64_t*>(values), n, shape, out);
}

// The token of a coarser shape for one of the finest shape.
unsigned coarsen(unsigned token, TokenShape fine, TokenShape coarse) {
  uint64_t v = token;
  if (token >= (1u << fine.split)) {
    const unsigned q = token - (1u << fine.split);
    v = uint64_t{(1u << fine.joined) + (q & ((1u << fine.joined) - 1))} << token_extra_bits(token, fine);
  }
  unsigned extra;
  return token_of(v, coarse, &extra);
}

// Histogram of the finest tokens, context by context, in scratch.bins.
void count(const uint8_t* tokens, const uint8_t* contexts, size_t n, unsigned context_count, EncodeScratch& s) {
  const size_t table = size_t{context_count} * 256;
  s.bins.assign(4 * table, 0);
  if (context_count == 1) {
    kernels().byte_histogram(tokens, n, s.bins.data());
  } else {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
      for (size_t k = 0; k < 4; ++k) ++s.bins[k * table + (size_t{contexts[i + k]} << 8) + tokens[i + k]];
    for (; i < n; ++i) ++s.bins[(size_t{contexts[i]} << 8) + tokens[i]];
  }
  for (size_t k = 0; k < table; ++k) s.bins[k] += s.bins[table + k] + s.bins[2 * table + k] + s.bins[3 * table + k];
}

// `used`: one more than the last fine token that occurs.
uint64_t shape_cost(const uint32_t* bins, unsigned context_count, unsigned used, TokenShape fine, TokenShape shape) {
  uint8_t map[256];
  for (unsigned t = 0; t < used; ++t) map[t] = static_cast<uint8_t>(coarsen(t, fine, shape));
  uint64_t bits = 0;
  for (unsigned c = 0; c < context_count; ++c) {
    uint32_t merged[256] = {};
    unsigned first = 256, last = 0;
    for (unsigned t = 0; t < used; ++t) {
      const uint32_t k = bins[c * 256 + t];
      if (k == 0) continue;
      const unsigned to = map[t];
      merged[to] += k;
      bits += uint64_t{k} * token_extra_bits(to, shape);
      first = std::min(first, to);
      last = std::max(last, to);
    }
    if (first > last) continue;
    bits += entropy_bits(merged + first, last - first + 1) + 16 + 4 * (last - first + 1);
    for (unsigned t = first; t <= last; ++t) bits += merged[t] ? kTableEntryBits - 4 : 0;
  }
  return bits;
}

struct Choice {
  TokenShape shape;
  uint64_t bits;
};

// Fills scratch.tokens with the finest tokens and picks the shape that costs least.
Choice choose(const uint8_t* values, unsigned width, size_t n, const uint8_t* contexts, unsigned context_count,
              EncodeScratch& s, const TokenShape* fixed = nullptr) {
  const TokenShape fine = finest(width);
  s.tokens.resize(n);
  tokens(values, width, n, fine, s.tokens.data());
  if (fixed) return {*fixed, 0};
  count(s.tokens.data(), contexts, n, context_count, s);
  unsigned used = 0;
  for (unsigned c = 0; c < context_count; ++c)
    for (unsigned t = 256; t > used; --t)
      if (s.bins[c * 256 + t - 1]) used = t;
  Choice best{fine, shape_cost(s.bins.data(), context_count, used, fine, fine)};
  for (const TokenShape shape : kShapes) {
    if (shape.joined > fine.joined) continue;
    const uint64_t bits = shape_cost(s.bins.data(), context_count, used, fine, shape);
    if (bits < best.bits) best = {shape, bits};
  }
  return best;
}

// The extra bits of all values, given their tokens.
template <class T>
void append_extra(Bytes& out, const T* v, const uint8_t* tokens, size_t n, TokenShape shape) {
  uint8_t bits[256];
  for (unsigned t = 0; t < 256; ++t) bits[t] = static_cast<uint8_t>(std::min(63u, token_extra_bits(t, shape)));
  uint64_t total = 0;
  for (size_t i = 0; i < n; ++i) total += bits[tokens[i]];
  const size_t bytes = static_cast<size_t>((total + 7) / 8);
  append_varint(out, bytes);
  size_t at = out.size();
  out.resize(at + bytes + 16);  // whole words are stored; the surplus is cut off at the end
  uint64_t buffer = 0;
  unsigned filled = 0;
  for (size_t i = 0; i < n; ++i) {
    const unsigned b = bits[tokens[i]];
    if (b == 0) continue;
    const uint64_t low = static_cast<uint64_t>(v[i]) & ((uint64_t{1} << b) - 1);
    buffer |= low << filled;
    if (filled + b >= 64) {
      std::memcpy(out.data() + at, &buffer, 8);
      at += 8;
      buffer = filled ? low >> (64 - filled) : 0;
      filled += b - 64;
    } else {
      filled += b;
    }
  }
  std::memcpy(out.data() + at, &buffer, 8);
  out.resize(at + (filled + 7) / 8);
}

}  // namespace

uint64_t integers_cost(const uint8_t* values, unsigned width, size_t n, const uint8_t* contexts, unsigned context_count,
                       EncodeScratch& scratch) {
  return choose(values, width, n, contexts, context_count, scratch).bits + 1;
}

void encode_integers(Bytes& out, const uint8_t* values, unsigned width, size_t n, const uint8_t* contexts,
                     unsigned context_count, EncodeScratch& s, const TokenShape* fixed) {
  const TokenShape shape = choose(values, width, n, contexts, context_count, s, fixed).shape;
  const TokenShape fine = finest(width);
  if (shape.split != fine.split || shape.joined != fine.joined) {
    uint8_t map[256];
    for (unsigned t = 0; t < 256; ++t) {
      const unsigned most = width <= 32 ? 256u : 242u;  // tokens that the finest shape can give
      map[t] = t < most ? static_cast<uint8_t>(coarsen(t, fine, shape)) : 0;
    }
    for (size_t i = 0; i < n; ++i) s.tokens[i] = map[s.tokens[i]];
  }
  out.push_back(static_cast<uint8_t>(shape.split));
  out.push_back(static_cast<uint8_t>(shape.joined));
  encode_symbols(out, s.tokens.data(), n, contexts, context_count, s);
  if (width == 8) append_extra(out, values, s.tokens.data(), n, shape);
  else if (width == 16) append_extra(out, reinterpret_cast<const uint16_t*>(values), s.tokens.data(), n, shape);
  else if (width == 32) append_extra(out, reinterpret_cast<const uint32_t*>(values), s.tokens.data(), n, shape);
  else append_extra(out, reinterpret_cast<const uint64_t*>(values), s.tokens.data(), n, shape);
}

}  // namespace limosa
