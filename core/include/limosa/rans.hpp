// Symbol streams (docs/format.md 3.2): static frequencies, 32 interleaved rANS states.
#pragma once
#include <cstdint>
#include <vector>

#include "limosa/bytes.hpp"
#include "limosa/format.hpp"
#include "limosa/kernels.hpp"

namespace limosa {

// ---- encoding ----

// Memory that a thread keeps between chunks.
struct EncodeScratch {
  std::vector<EncodeSymbol> table;
  std::vector<uint16_t> words;
  std::vector<uint32_t> bins;
  Bytes symbols, contexts, tokens, planes, values, units, mask;
  // levels
  std::vector<float> targets;
  std::vector<int32_t> fixed, stream;
  std::vector<uint32_t> levels;
  std::vector<uint16_t> decisions;
  Bytes classes, stream_classes;
};

// log2(v) in 1/65536 bit, from integers alone so that every machine makes the same choices; v >= 1.
uint32_t log2_fixed(uint32_t v);
// Sum over the bins of c * log2(sum / c), in bits.
uint64_t entropy_bits(const uint32_t* bins, size_t count);

// Appends the cheapest stream of n symbols; contexts may be null (then C = 1). `counts`: 256 for each context, if
// the caller has them.
void encode_symbols(Bytes& out, const uint8_t* symbols, size_t n, const uint8_t* contexts, unsigned context_count,
                    EncodeScratch& scratch, const uint32_t* counts = nullptr);

// True if x / f is exact for every state x < f * 2^(32-B) with the 32-bit reciprocal of f.
bool reciprocal_is_exact(uint32_t f, unsigned log2_total);
EncodeSymbol make_encode_symbol(uint32_t f, uint32_t cum, unsigned log2_total);
// Scales counts to frequencies that sum to 2^B; every used symbol keeps at least 1. Needs 2 used symbols for B = 12.
void normalise(const uint32_t* counts, unsigned log2_total, uint16_t* frequencies);

// ---- decoding ----

struct DecodeScratch {
  std::vector<DecodeEntry> table;
  std::vector<DecodeEntry> second_table;
  Bytes symbols, contexts, values, extra, units, planes;
  // levels
  std::vector<int32_t> levels;
  Bytes classes, quantizers;
};

// The trellises of a dependent stream (docs/format.md 3.11): which one a symbol belongs to, and their states.
struct TrellisWalk {
  size_t segments;  // 32 or 1
  size_t dealt;     // symbols dealt to the segments in turn; those that follow are the last segment's
  unsigned class_count;
  uint8_t states[kLanes] = {};

  uint8_t& state(size_t position) { return states[position < dealt ? position % segments : segments - 1]; }
};

// Reads a stream piece by piece.
class SymbolDecoder {
 public:
  // Parses the header and leaves `reader` behind the stream. The table lives in `table` until the next begin.
  void begin(Reader& reader, size_t n, unsigned context_count, std::vector<DecodeEntry>& table);
  // The next `count` symbols: a multiple of 32, or all that remain.
  void next(uint8_t* out, const uint8_t* contexts, size_t count);
  // The same with contexts from `walk`: `classes` (or null) plus class_count times the quantizer, which is reported.
  void next_trellis(uint8_t* out, const uint8_t* classes, TrellisWalk& walk, uint8_t* quantizers, size_t count);
  // Throws unless the stream ended as an encoder ends it.
  void finish() const;

 private:
  template <class Contexts>
  void next_scalar(uint8_t* out, size_t count, Contexts&& contexts);

  StreamKind kind_ = StreamKind::raw;
  const uint8_t* data_ = nullptr;  // raw symbols, or words
  size_t words_left_ = 0;
  unsigned log2_total_ = 0, lanes_ = 1, context_count_ = 1;
  size_t position_ = 0;
  size_t offset_ = 0;  // of the stream in the payload, for errors
  const DecodeEntry* table_ = nullptr;
  uint32_t states_[kLanes] = {};
};

}  // namespace limosa
