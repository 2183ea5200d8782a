// Classes of units from what their rows and columns promise (docs/format.md 3.11, 3.14).
#include "classes.hpp"

namespace limosa {
namespace {

constexpr uint64_t kListBits = 40;
constexpr int64_t kFinest = kOctave / 4;  // least distance of classes

// Classes of width `width` with the mean at `middle`.
Bytes classes_of(const Profile& p, int64_t width, int64_t middle, unsigned count) {
  Bytes c(p.log.size());
  for (size_t i = 0; i < c.size(); ++i) {
    const int64_t v = p.log[i] - p.mean + middle + width / 2;
    c[i] = static_cast<uint8_t>(v < 0 ? 0 : std::min<int64_t>(v / width, count - 1));
  }
  return c;
}

uint64_t list_bits(const Bytes& list) {
  uint32_t bins[kMaxClasses] = {};
  for (const uint8_t c : list) ++bins[c];
  const uint64_t entropy = entropy_bits(bins, kMaxClasses);
  return entropy ? entropy + kListBits : 16;
}

}  // namespace

void Profile::summarise(size_t n) {
  int64_t sum = 0;
  for (size_t i = 0; i < log.size(); ++i) sum += log[i] * units[i];
  mean = sum / static_cast<int64_t>(n);
  uint64_t squares = 0;  // in (octave / 256)^2
  for (size_t i = 0; i < log.size(); ++i) {
    const int64_t d = (log[i] - mean) / 256;
    squares += static_cast<uint64_t>(d * d) * units[i];
  }
  const uint64_t variance = squares / n;
  while ((deviation + 1) * (deviation + 1) <= static_cast<int64_t>(variance)) ++deviation;
  deviation *= 256;
}

bool too_many_lists(const Rows& rows) {
  return rows.columns > kChunkUnits || rows.count() + rows.columns > rows.n / 2;
}

RowClasses make_classes(const Profile& rows, const Profile& columns, unsigned count) {
  const int64_t r = rows.deviation, c = columns.deviation, spread = r + c;
  if (spread < kFinest / 4) return {};
  const int64_t width = std::max(kFinest, (r * r + c * c) / spread * 5 / count);
  const int64_t middle = width * (count - 1) / 2;
  return {count, classes_of(rows, width, middle * r / spread, count), classes_of(columns, width, middle * c / spread, count)};
}

uint64_t lists_bits(const RowClasses& lists) { return list_bits(lists.rows) + list_bits(lists.columns); }

void append_classes(Bytes& out, const RowClasses& lists, EncodeScratch& scratch) {
  out.push_back(static_cast<uint8_t>(lists.count));
  encode_symbols(out, lists.rows.data(), lists.rows.size(), nullptr, 1, scratch);
  encode_symbols(out, lists.columns.data(), lists.columns.size(), nullptr, 1, scratch);
}

}  // namespace limosa
