// Levels to units (docs/format.md 3.11): integers in the order of the stream, from there to rows of units.
#include "decode_block.hpp"
#include "levels.hpp"
#include "limosa/context_coder.hpp"
#include "trellis.hpp"

namespace limosa {
namespace {

struct Head {
  bool dependent = false, scaled = false, adaptive = false;
  ClassSource source = ClassSource::none;
  double step = 0;
};

Head read_head(Reader& r, const uint8_t* base) {
  Head h;
  const unsigned flags = r.number<uint8_t>();
  h.dependent = flags & dependent_levels;
  h.scaled = flags & scaled_rows;
  h.adaptive = flags & adaptive_levels;
  const unsigned source = flags >> 2 & 3;
  if (flags >> 5 || source > 2 || (source == 2 && !base)) r.corrupt("flags of levels");
  h.source = static_cast<ClassSource>(source);
  uint32_t bits = 0;
  std::memcpy(reinterpret_cast<uint8_t*>(&bits) + 1, r.take(3), 3);
  if (bits >> 31 || bits >> 23 == 0 || bits >> 23 == 255 || (bits >> 8 & 15)) r.corrupt("step of levels");
  float step;
  std::memcpy(&step, &bits, 4);
  h.step = static_cast<double>(step);
  return h;
}

// Fills b.s.classes where there are classes; their number.
unsigned decode_classes(Reader& r, const Block& b, const Head& h, const Rows& rows, const uint8_t* base) {
  if (h.source == ClassSource::none) return 1;
  const unsigned count = read_class_count(r, 1);
  b.s.classes.resize(b.n);
  if (h.source == ClassSource::base_exponent) {
    const unsigned first = r.number<uint16_t>();
    kernels().contexts(base, b.d.unit_bits, b.d.exponent_bits, b.d.mantissa_bits, b.n, first, count, b.s.classes.data());
    return count;
  }
  fill_classes(rows, read_row_classes(r, rows, count, b), 0, b.s.classes.data());
  return count;
}

void check(bool valid, const Reader& r) {
  if (!valid) r.corrupt("a level of 2^29 or more");
}

void decode_independent(Reader& r, const Block& b, unsigned count) {
  IntegerDecoder decoder;
  decoder.begin(r, b.n, 32, count, b.s, b.s.table);
  b.s.values.resize(std::max(b.s.values.size(), std::min(b.n, kPiece) * 4));
  for (size_t at = 0; at < b.n; at += kPiece) {
    const size_t n = std::min(kPiece, b.n - at);
    decoder.next(b.s.values.data(), count > 1 ? b.s.classes.data() + at : nullptr, n);
    const auto* values = reinterpret_cast<const uint32_t*>(b.s.values.data());
    check(kernels().level_integers(values, nullptr, n, b.s.levels.data() + at), r);
  }
  decoder.finish();
}

void decode_adaptively(Reader& r, const Block& b, const Rows& rows, bool dependent) {
  int32_t* levels = b.s.levels.data();
  decode_adaptive(r, levels, b.n, rows.columns, rows.first, dependent, b.s);
  unsigned state = 0;
  for (size_t i = 0; dependent && i < b.n; ++i) {
    const int32_t q = levels[i], magnitude = q < 0 ? -q : q;
    const int32_t rho = 2 * magnitude - (q ? static_cast<int32_t>(state & 1) : 0);  // |q| < 2^29
    check(rho < 1 << 29, r);
    levels[i] = q < 0 ? -rho : rho;
    state = kNextState[state + 8 * (static_cast<unsigned>(magnitude) & 1)];
  }
}

class DependentDecoder {
 public:
  DependentDecoder(const Block& b, unsigned count)
      : b_(b), segments_(segment_count(b.n, false)), length_(b.n / segments_), count_(count),
        walk_{segments_, segments_ * length_, count}, classes_(std::min(b.n, kPiece)), quantizers_(classes_.size()),
        rho_(classes_.size()) {
    b.s.values.resize(std::max(b.s.values.size(), classes_.size() * 4));
  }

  void run(Reader& r) {
    IntegerDecoder decoder;
    decoder.begin(r, b_.n, 32, 2 * count_, b_.s, b_.s.table);
    const size_t piece = kPiece / segments_;
    for (size_t first = 0; first < length_; first += piece) {
      const size_t groups = std::min(piece, length_ - first), n = groups * segments_;
      if (count_ > 1) deal(b_.s.classes.data(), segments_, length_, first, groups, classes_.data());
      next(r, decoder, classes_.data(), n);
      collect(rho_.data(), segments_, length_, first, groups, b_.s.levels.data());
    }
    const size_t dealt = segments_ * length_, rest = b_.n - dealt;
    if (rest) {
      next(r, decoder, count_ > 1 ? b_.s.classes.data() + dealt : nullptr, rest);
      std::copy_n(rho_.data(), rest, b_.s.levels.data() + dealt);
    }
    decoder.finish();
  }

 private:
  void next(const Reader& r, IntegerDecoder& decoder, const uint8_t* classes, size_t n) {
    decoder.next_trellis(b_.s.values.data(), count_ > 1 ? classes : nullptr, walk_, quantizers_.data(), n);
    const auto* values = reinterpret_cast<const uint32_t*>(b_.s.values.data());
    check(kernels().level_integers(values, quantizers_.data(), n, rho_.data()), r);
  }

  const Block& b_;
  size_t segments_, length_;
  unsigned count_;
  TrellisWalk walk_;
  Bytes classes_, quantizers_;
  std::vector<int32_t> rho_;
};

}  // namespace

void decode_levels(Reader& r, const Block& b, const uint8_t* base) {
  if (!b.d.is_float()) r.corrupt("levels in a tensor that is not float");
  const Head head = read_head(r, base);
  const Exceptions exceptions = read_exceptions(r, b);
  const Rows rows = read_rows(r, b.n);
  const Bytes scales = head.scaled ? read_symbols(r, rows.count(), b) : Bytes();
  const unsigned classes = decode_classes(r, b, head, rows, base);
  b.s.levels.resize(std::max(b.s.levels.size(), b.n));
  if (head.adaptive) decode_adaptively(r, b, rows, head.dependent);
  else if (head.dependent) DependentDecoder(b, classes).run(r);
  else decode_independent(r, b, classes);
  int32_t* rho = b.s.levels.data();
  if (head.source == ClassSource::base_exponent)
    for (size_t i = 0; i < b.n; ++i)
      if (is_negative(base + i * b.d.unit_bytes(), b.d.unit_bytes())) rho[i] = -rho[i];
  dequantize_rows(rows, rho, head.step, head.scaled ? scales.data() : nullptr, base, b.dtype, b.units);
  place_exceptions(exceptions, b);
}

}  // namespace limosa
