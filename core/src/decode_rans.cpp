#include <algorithm>
#include <cstring>

#include "limosa/rans.hpp"
#include "trellis.hpp"

namespace limosa {
namespace {

// One frequency table (docs/format.md 3.2) into 2^B entries.
void read_table(Reader& r, unsigned log2_total, bool single, DecodeEntry* table) {
  const unsigned first = r.number<uint8_t>(), last = r.number<uint8_t>();
  if (first > last) r.corrupt("frequency table: first symbol above last");
  uint32_t buffer = 0, sum = 0;
  unsigned filled = 0;
  const auto bits = [&](unsigned count) {
    while (filled < count) {
      buffer |= static_cast<uint32_t>(r.number<uint8_t>()) << filled;
      filled += 8;
    }
    const uint32_t v = buffer & ((1u << count) - 1);
    buffer >>= count;
    filled -= count;
    return v;
  };
  const uint32_t total = 1u << log2_total;
  unsigned length = 0;
  for (unsigned s = first; s <= last; ++s) {
    if (bits(1)) length = bits(1) ? bits(4) : bits(1) ? length + 1 : length - 1;
    if (length > 13) r.corrupt("length of a frequency");  // also what 0 - 1 wraps to
    const uint32_t f = length > 1 ? (1u << (length - 1)) | bits(length - 1) : length;
    if (f > total - sum) r.corrupt("frequencies exceed their total");
    if (single && f == 4096) r.corrupt("a frequency of 4096");
    const uint32_t entry = s | f << 8;
    for (uint32_t k = 0; k < f; ++k) table[sum + k] = entry | k << 20;
    sum += f;
  }
  if (sum != total) r.corrupt("frequencies sum to " + std::to_string(sum) + ", not " + std::to_string(total));
}

struct GivenContexts {
  const uint8_t* contexts;

  size_t before(size_t i) const { return contexts ? contexts[i] : 0; }
  void after(size_t, uint8_t) const {}
};

// Contexts of a dependent stream: each symbol moves the trellis of its segment.
struct TrellisContexts {
  TrellisWalk& walk;
  const uint8_t* classes;
  uint8_t* quantizers;
  size_t position;  // of symbol 0 in the stream

  size_t before(size_t i) {
    quantizers[i] = walk.state(position + i) & 1;
    return size_t{quantizers[i]} * walk.class_count + (classes ? classes[i] : 0);
  }
  void after(size_t i, uint8_t token) {
    uint8_t& state = walk.state(position + i);
    state = kNextState[state + 8 * token_parity(token)];
  }
};

}  // namespace

void SymbolDecoder::begin(Reader& r, size_t n, unsigned context_count, std::vector<DecodeEntry>& table) {
  offset_ = r.offset();
  position_ = 0;
  context_count_ = context_count;
  const uint8_t kind = r.number<uint8_t>();
  if (kind > static_cast<uint8_t>(StreamKind::rans1)) r.corrupt("symbol stream of kind " + std::to_string(kind));
  kind_ = static_cast<StreamKind>(kind);
  if (kind_ == StreamKind::raw || kind_ == StreamKind::constant) {
    data_ = r.take(kind_ == StreamKind::raw ? n : 1);
    return;
  }
  lanes_ = kind_ == StreamKind::rans32 ? kLanes : 1;
  log2_total_ = r.number<uint8_t>();
  const unsigned most = context_count == 1 ? kMaxLog2Total : kMaxLog2TotalContexts;
  if (log2_total_ < kMinLog2Total || log2_total_ > most)
    r.corrupt("logarithm of the frequency total " + std::to_string(log2_total_));
  table.resize(size_t{context_count} << log2_total_);
  for (unsigned c = 0; c < context_count; ++c)
    read_table(r, log2_total_, log2_total_ == kMaxLog2Total, table.data() + (size_t{c} << log2_total_));
  table_ = table.data();
  const uint64_t words = r.varint();
  if (words > n) r.corrupt("more rANS words than symbols");
  std::memcpy(states_, r.take(lanes_ * sizeof(uint32_t)), lanes_ * sizeof(uint32_t));
  for (unsigned k = 0; k < lanes_; ++k)
    if (states_[k] < kStateLow) r.corrupt("initial rANS state below 2^16");
  words_left_ = static_cast<size_t>(words);
  data_ = r.take(words_left_ * 2);
}

template <class Contexts>
void SymbolDecoder::next_scalar(uint8_t* out, size_t count, Contexts&& contexts) {
  const uint32_t mask = (1u << log2_total_) - 1;
  const unsigned lane_mask = lanes_ - 1, log2_total = log2_total_;
  const uint8_t* words = data_;
  const uint8_t* const end = data_ + 2 * words_left_;
  unsigned lane = static_cast<unsigned>(position_) & lane_mask;
  for (size_t i = 0; i < count; ++i, lane = (lane + 1) & lane_mask) {
    uint32_t x = states_[lane];
    const DecodeEntry e = table_[(contexts.before(i) << log2_total) + (x & mask)];
    out[i] = static_cast<uint8_t>(e);
    contexts.after(i, out[i]);
    x = (e >> 8 & 0xfff) * (x >> log2_total) + (e >> 20);
    if (x < kStateLow) {
      if (words == end) throw DecodeError{DecodeError::corrupt, offset_, "rANS words run out"};
      uint16_t w;
      std::memcpy(&w, words, 2);
      words += 2;
      x = x << 16 | w;
    }
    states_[lane] = x;
  }
  words_left_ -= static_cast<size_t>(words - data_) / 2;
  data_ = words;
  position_ += count;
}

void SymbolDecoder::next(uint8_t* out, const uint8_t* contexts, size_t count) {
  if (kind_ == StreamKind::raw) {
    std::memcpy(out, data_, count);
    data_ += count;
    return;
  }
  if (kind_ == StreamKind::constant) {
    std::memset(out, *data_, count);
    return;
  }
  if (context_count_ == 1) contexts = nullptr;
  while (lanes_ == kLanes && count >= kLanes && words_left_ >= kLanes) {
    // A group of 32 symbols takes at most 32 words, so these groups cannot run out.
    const size_t groups = std::min(count, words_left_) / kLanes;
    const size_t used = kernels().rans_decode32(table_, log2_total_, contexts, data_, states_, out, groups * kLanes);
    data_ += used * 2;
    words_left_ -= used;
    position_ += groups * kLanes;
    out += groups * kLanes;
    if (contexts) contexts += groups * kLanes;
    count -= groups * kLanes;
  }
  next_scalar(out, count, GivenContexts{contexts});
}

void SymbolDecoder::next_trellis(uint8_t* out, const uint8_t* classes, TrellisWalk& walk, uint8_t* quantizers,
                                 size_t count) {
  if (kind_ == StreamKind::raw || kind_ == StreamKind::constant) {
    next(out, nullptr, count);
    TrellisContexts contexts{walk, nullptr, quantizers, position_};
    for (size_t i = 0; i < count; ++i) {
      contexts.before(i);
      contexts.after(i, out[i]);
    }
    position_ += count;
    return;
  }
  if (walk.class_count == 1) classes = nullptr;
  size_t done = 0;
  const bool fast = lanes_ == kLanes && walk.segments == kLanes;
  while (fast && words_left_ >= kLanes) {
    const size_t dealt = std::min(count - done, walk.dealt - std::min(walk.dealt, position_));
    const size_t n = std::min(dealt, words_left_) / kLanes * kLanes;
    if (n == 0) break;
    const size_t used = kernels().rans_decode32_trellis(table_, log2_total_, classes ? classes + done : nullptr,
                                                        walk.class_count, data_, states_, walk.states, out + done,
                                                        quantizers + done, n);
    data_ += used * 2;
    words_left_ -= used;
    position_ += n;
    done += n;
  }
  next_scalar(out + done, count - done,
              TrellisContexts{walk, classes ? classes + done : nullptr, quantizers + done, position_});
}

void SymbolDecoder::finish() const {
  if (kind_ == StreamKind::raw || kind_ == StreamKind::constant) return;
  const bool clean = words_left_ == 0 &&
                     std::all_of(states_, states_ + lanes_, [](uint32_t x) { return x == kStateLow; });
  if (!clean) throw DecodeError{DecodeError::corrupt, offset_, "rANS stream does not end in its initial state"};
}

}  // namespace limosa
