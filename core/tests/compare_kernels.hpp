// One table of kernels against another: the same bytes from every function, on ordinary and hostile input.
// Buffers are exactly as large as kernels.hpp says, so that the address sanitizer sees a step outside.
#pragma once
#include <algorithm>
#include <cstring>

#include "check.hpp"
#include "limosa/integers.hpp"

namespace limosa::testing {

struct Shape {
  unsigned width, exponent, mantissa;
};
constexpr Shape kShapes[] = {{16, 5, 10}, {16, 8, 7}, {32, 8, 23}, {64, 11, 52}};

class Comparison {
 public:
  Comparison(const Kernels& expected, const Kernels& tested) : a_(expected), b_(tested), random_(11) {}

  void all() {
    rans();
    histograms();
    any_bits();
    all_shapes();
    all_sizes();
    steps();
    contexts();
    tokens();
    bytes();
  }

  void rans() {
    for (unsigned log2_total = kMinLog2Total; log2_total <= kMaxLog2Total; ++log2_total)
      for (unsigned count : {0u, 1u, 2u, 16u}) {  // 0: no contexts
        if (count > 1 && log2_total > kMaxLog2TotalContexts) continue;
        for (const unsigned symbols : {2u, 3u, 30u, 256u}) {
          const Tables t = tables(log2_total, std::max(count, 1u), symbols);
          for (const size_t n : {32u, 64u, 96u, 1024u, 4096u}) {
            decode(t, log2_total, count, n);
            if (count > 1) decode_trellis(t, log2_total, count / 2, n);
            encode(t, log2_total, count, n, symbols);
          }
        }
      }
    identity();
  }

 private:
  struct Tables {
    std::vector<DecodeEntry> decode;
    std::vector<EncodeSymbol> encode;
    std::vector<uint8_t> used;  // 256 for each context
  };

  Tables tables(unsigned log2_total, unsigned count, unsigned symbols) {
    Tables t;
    t.encode.resize(256 * count);
    t.used.resize(256 * count);
    for (unsigned c = 0; c < count; ++c) {
      uint32_t counts[256] = {};
      for (unsigned i = 0; i < symbols; ++i) counts[symbols == 256 ? i : random_.below(256)] = 1 + static_cast<uint32_t>(random_.below(1u << random_.below(20)));
      counts[17] += 1;
      counts[203] += 1;
      uint16_t f[256];
      normalise(counts, log2_total, f);
      uint32_t cum = 0;
      for (unsigned s = 0; s < 256; cum += f[s++]) {
        if (f[s] == 0) continue;
        t.used[256 * c + s] = 1;
        t.encode[256 * c + s] = make_encode_symbol(f[s], cum, log2_total);
        for (uint32_t k = 0; k < f[s]; ++k) t.decode.push_back(s | uint32_t{f[s]} << 8 | k << 20);
      }
    }
    return t;
  }

  Bytes make_contexts(unsigned count, size_t n) {
    Bytes c(n);
    for (uint8_t& v : c) v = static_cast<uint8_t>(random_.below(std::max(count, 1u)));
    return c;
  }

  void make_states(uint32_t* states) {
    const bool extreme = random_.chance(3);
    for (unsigned k = 0; k < kLanes; ++k)
      states[k] = extreme ? (random_.chance(2) ? kStateLow : ~0u)
                          : static_cast<uint32_t>(random_.next() | kStateLow) >> random_.below(15) | kStateLow;
  }

  // Any words are as good as those of an encoder.
  void decode(const Tables& t, unsigned log2_total, unsigned count, size_t n) {
    const Bytes words = random_.chance(4) ? Bytes(2 * n, random_.chance(2) ? 0 : 255) : random_.bytes(2 * n);
    const Bytes c = make_contexts(count, n);
    uint32_t x[kLanes], y[kLanes];
    make_states(x);
    std::memcpy(y, x, sizeof x);
    Bytes out_a(n), out_b(n);
    const uint8_t* contexts = count ? c.data() : nullptr;
    const size_t used = a_.rans_decode32(t.decode.data(), log2_total, contexts, words.data(), x, out_a.data(), n);
    CHECK(b_.rans_decode32(t.decode.data(), log2_total, contexts, words.data(), y, out_b.data(), n) == used);
    CHECK_CASE(out_a == out_b, "%s, B %u, %u contexts, %zu symbols", b_.name, log2_total, count, n);
    CHECK(std::memcmp(x, y, sizeof x) == 0);
  }

  void decode_trellis(const Tables& t, unsigned log2_total, unsigned classes, size_t n) {
    const Bytes words = random_.bytes(2 * n), c = make_contexts(classes, n);
    uint32_t x[kLanes], y[kLanes];
    make_states(x);
    std::memcpy(y, x, sizeof x);
    Bytes states_a = make_contexts(kTrellisStates, kLanes), states_b = states_a;
    Bytes out_a(n), out_b(n), quantizers_a(n), quantizers_b(n);
    const uint8_t* given = classes > 1 ? c.data() : nullptr;
    const size_t used = a_.rans_decode32_trellis(t.decode.data(), log2_total, given, classes, words.data(), x,
                                                 states_a.data(), out_a.data(), quantizers_a.data(), n);
    CHECK(b_.rans_decode32_trellis(t.decode.data(), log2_total, given, classes, words.data(), y, states_b.data(),
                                   out_b.data(), quantizers_b.data(), n) == used);
    CHECK_CASE(out_a == out_b && quantizers_a == quantizers_b, "%s, B %u, %u classes", b_.name, log2_total, classes);
    CHECK(states_a == states_b && std::memcmp(x, y, sizeof x) == 0);
  }

  void encode(const Tables& t, unsigned log2_total, unsigned count, size_t n, unsigned symbols) {
    const Bytes c = make_contexts(count, n);
    Bytes s(n);
    for (size_t i = 0; i < n; ++i) do s[i] = static_cast<uint8_t>(random_.next()); while (!t.used[256 * c[i] + s[i]]);
    uint32_t x[kLanes], y[kLanes];
    make_states(x);
    std::memcpy(y, x, sizeof x);
    std::vector<uint16_t> words_a(n + 8), words_b(n + 8);
    const uint8_t* contexts = count ? c.data() : nullptr;
    const uint16_t* end_a = a_.rans_encode32(t.encode.data(), contexts, s.data(), n, x, words_a.data() + n + 8);
    const uint16_t* end_b = b_.rans_encode32(t.encode.data(), contexts, s.data(), n, y, words_b.data() + n + 8);
    const size_t used = static_cast<size_t>(words_a.data() + n + 8 - end_a);
    CHECK(used == static_cast<size_t>(words_b.data() + n + 8 - end_b));
    CHECK_CASE(std::memcmp(end_a, end_b, 2 * used) == 0, "%s, B %u, %u contexts, %u of %zu symbols", b_.name, log2_total,
               count, symbols, n);
    CHECK(std::memcmp(x, y, sizeof x) == 0);
    // And back, with a state before encoding that a decoder ends in.
    Bytes words(2 * std::max(n, used)), out(n);
    std::memcpy(words.data(), end_b, 2 * used);
    CHECK(b_.rans_decode32(t.decode.data(), log2_total, contexts, words.data(), y, out.data(), n) == used);
    CHECK(out == s);
  }

  // A context with one symbol has the frequency 2^B: states stay as they are.
  void identity() {
    for (unsigned log2_total = kMinLog2Total; log2_total <= kMaxLog2TotalContexts; ++log2_total) {
      const uint32_t total = 1u << log2_total;
      std::vector<EncodeSymbol> t(256, make_encode_symbol(total, 0, log2_total));
      std::vector<DecodeEntry> d;
      for (uint32_t k = 0; k < total; ++k) d.push_back(9 | total << 8 | k << 20);
      const Bytes c(64, 0), s(64, 9), words(128);
      std::vector<uint16_t> room(72);
      uint32_t x[kLanes], y[kLanes];
      make_states(x);
      std::memcpy(y, x, sizeof x);
      CHECK(b_.rans_encode32(t.data(), c.data(), s.data(), 64, y, room.data() + 72) == room.data() + 72);
      CHECK(std::memcmp(x, y, sizeof x) == 0);
      Bytes out(64);
      CHECK(b_.rans_decode32(d.data(), log2_total, c.data(), words.data(), y, out.data(), 64) == 0);
      CHECK(std::memcmp(x, y, sizeof x) == 0 && out == s);
    }
  }

  // Units that look like weights, with some hostile ones among them.
  Bytes units(const Shape& shape, size_t n) {
    const size_t size = shape.width / 8;
    Bytes u(n * size);
    const uint64_t all = ~uint64_t{0} >> (64 - shape.width);
    const uint64_t bias = (uint64_t{1} << (shape.exponent - 1)) - 1;
    for (size_t i = 0; i < n; ++i) {
      uint64_t v = random_.next() & all;
      const unsigned kind = static_cast<unsigned>(random_.below(16));
      if (kind == 0) v = 0;
      else if (kind == 1) v = uint64_t{1} << (shape.width - 1);
      else if (kind == 2) v |= ((uint64_t{1} << shape.exponent) - 1) << shape.mantissa;
      else if (kind > 3) {
        v &= ~(((uint64_t{1} << shape.exponent) - 1) << shape.mantissa);
        v |= (bias - random_.below(12)) << shape.mantissa;
      }
      std::memcpy(u.data() + i * size, &v, size);
    }
    return u;
  }

  static void clear_low(Bytes& u, size_t size, unsigned zeros) {
    for (size_t i = 0; i < u.size(); i += size) {
      uint64_t v = 0;
      std::memcpy(&v, u.data() + i, size);
      v = v >> zeros << zeros;
      std::memcpy(u.data() + i, &v, size);
    }
  }

  void split_join(const Shape& shape, unsigned k, unsigned z, size_t n) {
    const size_t size = shape.width / 8;
    const unsigned top = shape.exponent + k;
    const BitPlanes layout{shape.width - top - z, n};
    const uint64_t fields = uint64_t{1} << top, bias = ((uint64_t{1} << (shape.exponent - 1)) - 1) << k;
    const uint32_t window = static_cast<uint32_t>(
        random_.chance(2) ? random_.below(fields) : std::min(fields - 1, bias > 200 ? bias - 200 : 0));
    Bytes u = units(shape, n);
    if (!random_.chance(4)) clear_low(u, size, z);
    const auto where = [&] { return std::string(b_.name) + " width " + std::to_string(shape.width) + " k " + std::to_string(k) + " z " + std::to_string(z) + " n " + std::to_string(n); };

    Bytes symbols_a(n), symbols_b(n), planes_a(layout.bytes()), planes_b(layout.bytes());
    a_.split(u.data(), shape.width, n, top, z, window, symbols_a.data(), planes_a.data());
    b_.split(u.data(), shape.width, n, top, z, window, symbols_b.data(), planes_b.data());
    CHECK_CASE(symbols_a == symbols_b && planes_a == planes_b, "%s", where().c_str());

    Bytes joined_a(n * size), joined_b(n * size);
    const size_t piece = n > 512 && random_.chance(2) ? 256 : 8192;
    for (size_t at = 0; at < n; at += piece) {
      const size_t count = std::min(piece, n - at);
      a_.join(symbols_a.data() + at, planes_a.data(), shape.width, at, count, n, top, z, window, joined_a.data() + at * size);
      b_.join(symbols_a.data() + at, planes_a.data(), shape.width, at, count, n, top, z, window, joined_b.data() + at * size);
    }
    CHECK_CASE(joined_a == joined_b, "%s", where().c_str());
    clear_low(u, size, z);
    for (size_t i = 0; i < n; ++i)
      if (symbols_a[i]) CHECK_CASE(std::memcmp(&u[i * size], &joined_a[i * size], size) == 0, "%s", where().c_str());
  }

  void all_shapes() {
    for (const Shape& shape : kShapes)
      for (unsigned k = 0; k <= kMaxJoined; ++k)
        for (unsigned z = 0; k + z <= shape.mantissa; ++z)
          for (const size_t n : {1 + random_.below(40), 255 + random_.below(3), 512 + random_.below(500)})
            split_join(shape, k, z, n);
  }

  void all_sizes() {
    for (size_t n = 1; n <= 1000; n += n < 300 ? 1 : 7) {
      split_join(kShapes[0], 3, 0, n);  // the shapes with a path of their own: rests of 8, 6 and 22 bits
      split_join(kShapes[1], 2, 0, n);
      split_join(kShapes[2], 2, 0, n);
      const Shape& shape = kShapes[n % 4];
      const unsigned k = static_cast<unsigned>(random_.below(kMaxJoined + 1));
      split_join(shape, k, static_cast<unsigned>(random_.below(shape.mantissa - k + 1)), n);
    }
    split_join(kShapes[1], 2, 0, 8192 + 300);
    split_join(kShapes[1], 1, 1, 8192 + 300);
    split_join(kShapes[0], 3, 0, 3 * 8192 + 1);
  }

  static std::vector<uint32_t> add4(const std::vector<uint32_t>& bins) {
    const size_t n = bins.size() / 4;
    std::vector<uint32_t> sum(n);
    for (size_t i = 0; i < bins.size(); ++i) sum[i % n] += bins[i];
    return sum;
  }

  void histograms() {
    for (size_t n = 1; n <= 300; ++n) {
      const Bytes bytes = random_.bytes(n);
      std::vector<uint32_t> a(1024), b(1024);
      a_.byte_histogram(bytes.data(), n, a.data());
      b_.byte_histogram(bytes.data(), n, b.data());
      CHECK(add4(a) == add4(b));
      const Shape& shape = kShapes[n % 4];
      const Bytes u = units(shape, n);
      for (const unsigned bits : {shape.exponent, shape.exponent + 2, shape.exponent + 5}) {
        a.assign(size_t{4} << bits, 0);
        b.assign(size_t{4} << bits, 0);
        a_.top_histogram(u.data(), shape.width, n, bits, a.data());
        b_.top_histogram(u.data(), shape.width, n, bits, b.data());
        CHECK(add4(a) == add4(b));
      }
    }
  }

  void any_bits() {
    for (const unsigned width : {8u, 16u, 32u, 64u})
      for (size_t n = 1; n <= 200; ++n) {
        Bytes u = random_.bytes(n * width / 8);
        if (random_.chance(2)) {
          for (size_t i = width / 8; i < u.size(); ++i) u[i] = u[i - width / 8];
          u[random_.below(u.size())] ^= static_cast<uint8_t>(random_.below(2) << random_.below(8));
        }
        uint64_t any_a, any_b, differing_a, differing_b;
        a_.or_units(u.data(), width, n, &any_a, &differing_a);
        b_.or_units(u.data(), width, n, &any_b, &differing_b);
        CHECK(any_a == any_b && differing_a == differing_b);
      }
  }

  void steps() {
    for (const unsigned width : {8u, 16u, 32u, 64u})
      for (const bool is_float : {false, true}) {
        if (width == 8 && is_float) continue;
        for (size_t n = 1; n <= 1000; n += n < 300 ? 1 : 13) {
          const size_t size = width / 8;
          const Bytes base = random_.bytes(n * size);
          Bytes u = base, values_a(n * size), values_b(n * size), back(n * size);
          const uint64_t share = 1 + random_.below(n);  // changed bytes: from nearly all to one
          for (uint8_t& v : u)
            if (random_.chance(share)) v = static_cast<uint8_t>(random_.next());
          size_t changed = 0;
          for (size_t i = 0; i < n; ++i) changed += std::memcmp(&u[i * size], &base[i * size], size) != 0;
          CHECK(a_.steps(u.data(), base.data(), width, 0, is_float, n, values_a.data()) == changed);
          CHECK(b_.steps(u.data(), base.data(), width, 0, is_float, n, values_b.data()) == changed);
          CHECK_CASE(values_a == values_b, "%s width %u n %zu", b_.name, width, n);
          b_.apply_steps(values_a.data(), base.data(), width, is_float, n, back.data());
          CHECK_CASE(back == u, "%s width %u n %zu", b_.name, width, n);
        }
      }
  }

  void contexts() {
    for (const Shape& shape : kShapes)
      for (size_t n = 1; n <= 200; ++n) {
        const Bytes base = units(shape, n);
        Bytes a(n), b(n);
        const unsigned count = 1 + static_cast<unsigned>(random_.below(kMaxContexts));
        const unsigned first = static_cast<unsigned>(random_.below(random_.chance(4) ? 65536 : 1u << shape.exponent));
        a_.contexts(base.data(), shape.width, shape.exponent, shape.mantissa, n, first, count, a.data());
        b_.contexts(base.data(), shape.width, shape.exponent, shape.mantissa, n, first, count, b.data());
        CHECK(a == b);
        CHECK(*std::max_element(a.begin(), a.end()) < count);
      }
  }

  // Tokens of every shape; extra bits that last, or run out at any place; tokens that the width does not have.
  void expand(unsigned width, TokenShape shape, size_t n, unsigned wide_one_in, bool run_out) {
    const unsigned direct = 1u << shape.split;
    uint64_t entries[256] = {};
    unsigned invalid = 256;
    for (unsigned t = 0; t < invalid; ++t) {
      const unsigned bits = token_extra_bits(t, shape);
      const uint64_t top = (1u << shape.joined) + ((t - direct) & ((1u << shape.joined) - 1));
      const uint64_t base = t < direct ? t : bits > 40 ? ~uint64_t{0} : top << bits;
      if (base >> width) invalid = t;
      else entries[t] = base << 8 | bits;
    }
    Bytes t(n);
    uint64_t bits = 0;
    for (uint8_t& v : t) {
      v = static_cast<uint8_t>(random_.below(random_.chance(wide_one_in) ? invalid : std::min(direct, invalid)));
      bits += token_extra_bits(v, shape);
    }
    if (invalid < 256 && random_.chance(4)) t[random_.below(n)] = static_cast<uint8_t>(invalid + random_.below(256 - invalid));
    const uint64_t start = random_.below(16), end = run_out ? random_.below(start + bits + 1) : start + bits;
    const Bytes extra = random_.bytes(static_cast<size_t>((std::max(start, end) + 7) / 8) + 32 * 8 + 8);
    Bytes a(n * width / 8, 0xcc), b(n * width / 8, 0xcc);
    uint64_t at_a = start, at_b = start;
    const size_t done = a_.expand_tokens(t.data(), n, entries, direct, invalid, extra.data(), &at_a, end, width, a.data());
    CHECK(b_.expand_tokens(t.data(), n, entries, direct, invalid, extra.data(), &at_b, end, width, b.data()) == done);
    CHECK_CASE(at_a == at_b && done <= n && std::memcmp(a.data(), b.data(), done * width / 8) == 0,
               "%s width %u shape %u %u n %zu", b_.name, width, shape.split, shape.joined, n);
  }

  void tokens() {
    for (const unsigned width : {8u, 16u, 32u})
      for (unsigned split = 0; split <= 7; ++split)
        for (unsigned joined = 0; joined <= split; ++joined)
          for (const unsigned wide_one_in : {1u, 3u, 30u}) {
            expand(width, {split, joined}, 1 + random_.below(100), wide_one_in, false);
            expand(width, {split, joined}, 1 + random_.below(1000), wide_one_in, true);
            expand(width, {split, joined}, 32 * (1 + random_.below(20)), wide_one_in, random_.chance(2));
          }
  }

  void bytes() {
    for (size_t n = 1; n <= 200; ++n) {
      const Bytes x = random_.bytes(n), y = random_.bytes(n);
      Bytes a(n), b = x;
      a_.xor_bytes(x.data(), y.data(), n, a.data());
      b_.xor_bytes(b.data(), y.data(), n, b.data());  // in place, as a decoder does
      CHECK(a == b);
      for (const size_t stride : {1u, 2u, 4u, 8u}) {
        const Bytes u = random_.bytes(n * stride);
        Bytes plane_a(n), plane_b(n), back(n * stride);
        for (size_t p = 0; p < stride; ++p) {
          // The last unit ends with its plane's byte, so the buffer does too.
          const Bytes cut(u.begin() + static_cast<long>(p), u.begin() + static_cast<long>((n - 1) * stride + p + 1));
          a_.gather_plane(cut.data(), stride, n, plane_a.data());
          b_.gather_plane(cut.data(), stride, n, plane_b.data());
          CHECK(plane_a == plane_b);
          b_.scatter_plane(plane_b.data(), stride, n, back.data() + p);
        }
        CHECK(back == u);
      }
    }
  }

  const Kernels &a_, &b_;
  Random random_;
};

}  // namespace limosa::testing
