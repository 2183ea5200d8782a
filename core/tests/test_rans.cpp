// Symbol and integer streams: exact reciprocals, skewed and ordinary data, damage.
#include <algorithm>

#include "check.hpp"
#include "limosa/integers.hpp"

using namespace limosa;
using testing::Random;
using testing::error_of;
using testing::for_each_kernels;

namespace {

uint32_t encode_step(uint32_t x, const EncodeSymbol& s) {
  const uint32_t q = static_cast<uint32_t>(uint64_t{x} * s.reciprocal >> 32) >> (s.packed >> 25);
  return x + (s.packed & 0x1fff) + q * (s.packed >> 13 & 0xfff);
}

// Every frequency that claims an exact reciprocal, at the states where a rounded one fails first: one below
// a multiple of the frequency, most of all at the top.
void reciprocals() {
  Random random(1);
  for (unsigned b = kMinLog2Total; b <= kMaxLog2Total; ++b) {
    unsigned inexact = 0;
    for (uint32_t f = 1; f <= 4095 && f < (1u << b); ++f) {
      if (!reciprocal_is_exact(f, b)) {
        CHECK(f > (1u << (b - 1)));  // normalise relies on it: at most one symbol is this frequent
        ++inexact;
        continue;
      }
      const uint32_t cum = static_cast<uint32_t>(random.below((1u << b) - f + 1));
      const EncodeSymbol s = make_encode_symbol(f, cum, b);
      const uint64_t lowest = uint64_t{f} << (16 - b), end = uint64_t{f} << (32 - b);
      CHECK(s.limit == end - 1);
      const auto check = [&](uint64_t x) {
        if (x < lowest || x >= end) return;
        const uint64_t expected = (x / f << b) + x % f + cum;
        CHECK_CASE(encode_step(static_cast<uint32_t>(x), s) == expected, "B %u f %u x %llu", b, f,
                   static_cast<unsigned long long>(x));
      };
      for (uint64_t k = 0; k < 4; ++k) {
        for (const uint64_t at : {lowest + k * f, end - k * f, uint64_t{65536} + k * f})
          for (uint64_t d = 0; d < 3; ++d) check(at + d - 1);
      }
      for (int i = 0; i < 20; ++i) {
        const uint64_t multiple = random.below(end / f) * f;
        check(multiple - 1);
        check(multiple);
        check(random.below(end));
      }
    }
    CHECK_CASE(inexact < (1u << b) / 4, "B %u: %u inexact", b, inexact);
  }
}

void check_normalised(const uint32_t* counts, unsigned b) {
  uint16_t f[256];
  normalise(counts, b, f);
  uint32_t sum = 0;
  for (unsigned s = 0; s < 256; ++s) {
    sum += f[s];
    CHECK((counts[s] == 0) == (f[s] == 0));
    if (f[s] && f[s] < (1u << b)) CHECK_CASE(reciprocal_is_exact(f[s], b), "B %u f %u", b, unsigned{f[s]});
  }
  CHECK(sum == 1u << b);
}

void normalisation() {
  Random random(2);
  for (unsigned b = kMinLog2Total; b <= kMaxLog2Total; ++b) {
    for (uint32_t k = 1; k < 4096; ++k) {  // two symbols, in every proportion
      uint32_t counts[256] = {};
      counts[k % 255] = k;
      counts[255] = 4096 - k;
      check_normalised(counts, b);
    }
    uint32_t counts[256];
    for (int i = 0; i < 300; ++i) {
      const unsigned spread = 1 + static_cast<unsigned>(random.below(24));
      for (uint32_t& c : counts) c = static_cast<uint32_t>(random.below(uint64_t{1} << random.below(spread)));
      counts[random.below(256)] = 1 + static_cast<uint32_t>(random.below(262144));
      counts[random.below(256)] += 1;
      check_normalised(counts, b == kMaxLog2Total && std::count(counts, counts + 256, 0u) == 255 ? 11 : b);
    }
    std::fill(counts, counts + 256, 1);
    check_normalised(counts, b);
    counts[7] = 262144 - 255;
    check_normalised(counts, b);
  }
}

struct Stream {
  Bytes symbols, contexts;
  unsigned context_count = 1;
};

Bytes encode(const Stream& s) {
  EncodeScratch scratch;
  Bytes out;
  encode_symbols(out, s.symbols.data(), s.symbols.size(), s.contexts.empty() ? nullptr : s.contexts.data(),
                 s.context_count, scratch);
  return out;
}

// In pieces of `piece` symbols, a multiple of 32.
Bytes decode(const uint8_t* data, size_t size, const Stream& s, size_t piece) {
  std::vector<DecodeEntry> table;
  Reader r(data, size);
  SymbolDecoder decoder;
  const size_t n = s.symbols.size();
  decoder.begin(r, n, s.context_count, table);
  Bytes out(n);
  for (size_t at = 0; at < n; at += piece)
    decoder.next(out.data() + at, s.contexts.empty() ? nullptr : s.contexts.data() + at, std::min(piece, n - at));
  decoder.finish();
  if (r.left()) r.corrupt("bytes left");
  return out;
}

// All tables of kernels write the same bytes and read them back, whole and in pieces.
Bytes round_trip(const Stream& s) {
  Bytes first;
  for_each_kernels([&](const char* name) {
    const Bytes encoded = encode(s);
    CHECK(encoded.size() <= s.symbols.size() + 1);
    if (first.empty()) first = encoded;
    CHECK_CASE(encoded == first, "%s, %zu symbols", name, s.symbols.size());
    for (const size_t piece : {size_t{32}, size_t{8192}, s.symbols.size() / 32 * 32 + 32})
      CHECK_CASE(decode(encoded.data(), encoded.size(), s, piece) == s.symbols, "%s, %zu symbols", name, s.symbols.size());
  });
  return first;
}

Stream skewed(Random& random, size_t n, unsigned one_in, unsigned others) {
  Stream s;
  s.symbols.assign(n, 77);
  for (uint8_t& v : s.symbols)
    if (random.chance(one_in)) v = static_cast<uint8_t>(78 + random.below(others));
  return s;
}

void with_contexts(Random& random, Stream& s, unsigned count, unsigned used) {
  s.context_count = count;
  s.contexts.resize(s.symbols.size());
  for (uint8_t& c : s.contexts) c = static_cast<uint8_t>(random.below(used));
}

std::vector<Stream> streams() {
  Random random(3);
  std::vector<Stream> all;
  for (const size_t n : {1u, 2u, 31u, 32u, 33u, 100u, 1000u, 1023u, 1024u, 16383u, 16384u, 16385u, 17001u, 50000u}) {
    all.push_back(skewed(random, n, 42, 3));   // 97.6 % one value
    all.push_back(skewed(random, n, 2, 1));    // two symbols
    all.push_back(skewed(random, n, 5000, 1)); // nearly constant
    Stream equal, whole, coarse;
    for (size_t i = 0; i < n; ++i) {
      equal.symbols.push_back(static_cast<uint8_t>(i));  // 256 equally frequent
      whole.symbols.push_back(static_cast<uint8_t>(random.next()));
      coarse.symbols.push_back(static_cast<uint8_t>(128 + 12 * random.normal()));
    }
    all.push_back(equal);
    all.push_back(whole);
    all.push_back(coarse);
    for (const unsigned contexts : {2u, 4u, 16u}) {
      with_contexts(random, coarse, contexts, contexts);
      all.push_back(coarse);
      with_contexts(random, coarse, contexts, 1);  // all but one have no symbols
      all.push_back(coarse);
      for (size_t i = 0; i < n; ++i) coarse.symbols[i] = static_cast<uint8_t>(coarse.contexts[i] + random.below(2));
      all.push_back(coarse);
    }
    Stream one;
    one.symbols.assign(n, 255);
    all.push_back(one);
  }
  return all;
}

void symbol_streams() {
  for (const Stream& s : streams()) round_trip(s);
}

// A proper prefix is an error, and a flipped bit is an error or other symbols: the same with all kernels.
void damage() {
  Random random(4);
  for (const Stream& s : streams()) {
    CHECK(select_kernels("scalar"));
    const Bytes whole = encode(s);
    const size_t n = s.symbols.size();
    for (size_t size = 0; size < whole.size(); size += whole.size() < 3000 ? 1 : 1 + random.below(whole.size() / 20)) {
      const Bytes prefix(whole.begin(), whole.begin() + static_cast<long>(size));
      CHECK(error_of([&] { decode(prefix.data(), size, s, 8192); }) != "");
    }
    for (int i = 0; i < (n < 5000 ? 40 : 6); ++i) {
      Bytes bad = whole;
      const size_t bit = random.below(8 * (i % 2 ? bad.size() : std::min<size_t>(bad.size(), 64)));
      bad[bit / 8] = static_cast<uint8_t>(bad[bit / 8] ^ 1 << bit % 8);
      std::string expected;
      Bytes symbols;
      for_each_kernels([&](const char* name) {
        Bytes out;
        const std::string error = error_of([&] { out = decode(bad.data(), bad.size(), s, 8192); });
        if (std::string(name) == "scalar") {
          expected = error;
          symbols = out;
        }
        CHECK_CASE(error == expected && out == symbols, "%s, bit %zu", name, bit);
      });
    }
  }
}

template <class T>
void integers_of(Random& random, unsigned context_count) {
  constexpr unsigned width = 8 * sizeof(T);
  for (unsigned bits = 0; bits <= width; bits += bits < 16 ? 1 : 7)
    for (const size_t n : {1u, 33u, 500u, 9000u}) {
      std::vector<T> values(n);
      Bytes contexts(n);
      for (size_t i = 0; i < n; ++i) {
        const unsigned b = static_cast<unsigned>(random.below(bits + 1));
        values[i] = b == 0 ? T{0} : static_cast<T>(random.next() >> (64 - b));
        contexts[i] = static_cast<uint8_t>(random.below(context_count));
      }
      if (bits == width) values[0] = values[n - 1] = static_cast<T>(~T{0});
      EncodeScratch scratch;
      Bytes out;
      const auto* raw = reinterpret_cast<const uint8_t*>(values.data());
      encode_integers(out, raw, width, n, contexts.data(), context_count, scratch);
      CHECK(integers_cost(raw, width, n, contexts.data(), context_count, scratch) > 0);
      const auto decode_prefix = [&](size_t size) {
        const Bytes data(out.begin(), out.begin() + static_cast<long>(size));
        Reader r(data.data(), size);
        DecodeScratch s;
        IntegerDecoder decoder;
        decoder.begin(r, n, width, context_count, s, s.table);
        std::vector<T> back(n);
        for (size_t at = 0; at < n; at += 8192)
          decoder.next(reinterpret_cast<uint8_t*>(back.data() + at), contexts.data() + at, std::min<size_t>(8192, n - at));
        decoder.finish();
        CHECK(r.left() == 0);
        return back;
      };
      CHECK_CASE(decode_prefix(out.size()) == values, "width %u bits %u n %zu", width, bits, n);
      for (size_t size = 0; size < out.size(); size += 1 + out.size() / 64)
        CHECK(error_of([&] { decode_prefix(size); }) != "");
    }
}

void integer_streams() {
  Random random(5);
  for (const unsigned contexts : {1u, 16u}) {
    integers_of<uint8_t>(random, contexts);
    integers_of<uint16_t>(random, contexts);
    integers_of<uint32_t>(random, contexts);
    integers_of<uint64_t>(random, contexts);
  }
}

void token_shapes() {
  for (unsigned split = 0; split <= 7; ++split)
    for (unsigned joined = 0; joined <= split; ++joined)
      for (unsigned bit = 0; bit < 64; ++bit)
        for (const uint64_t v : {uint64_t{1} << bit, (uint64_t{1} << bit) - 1, (uint64_t{3} << bit) + 5}) {
          unsigned extra;
          const TokenShape shape{split, joined};
          const unsigned token = token_of(v, shape, &extra);
          CHECK(extra == token_extra_bits(token, shape));
          if (v < (uint64_t{1} << split)) CHECK(token == v && extra == 0);
          else CHECK(v >> extra >> joined == 1);
        }
}

void logarithms() {
  CHECK(log2_fixed(1) == 0);
  for (unsigned b = 0; b < 32; ++b) CHECK(log2_fixed(1u << b) == b << 16);
  for (uint32_t v = 1; v < 100000; ++v) CHECK(log2_fixed(v) <= log2_fixed(v + 1));
  const uint32_t bins[4] = {1000, 1000, 1000, 1000};
  CHECK(entropy_bits(bins, 4) == 8000);
  CHECK(entropy_bits(bins, 1) == 0);
}

}  // namespace

int main() {
  reciprocals();
  normalisation();
  logarithms();
  symbol_streams();
  damage();
  token_shapes();
  integer_streams();
}
