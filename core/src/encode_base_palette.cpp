// Differences from a base by a codebook (docs/format.md 3.12).
#include <cmath>
#include <cstring>

#include "encode_levels.hpp"

namespace limosa {
namespace {

// One value of the codebook, as the dtype holds it.
struct Entry {
  double value;
  uint64_t unit;
};

std::vector<Entry> rounded_entries(const std::vector<double>& book, unsigned dtype) {
  std::vector<Entry> entries;
  for (const double value : book) {
    Entry e{0, 0};
    double_to_unit(value, dtype, reinterpret_cast<uint8_t*>(&e.unit));
    e.value = unit_to_double(reinterpret_cast<const uint8_t*>(&e.unit), dtype);
    if (std::isfinite(e.value)) entries.push_back(e);
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.value < b.value; });
  const auto same = [](const Entry& a, const Entry& b) { return a.unit == b.unit; };
  entries.erase(std::unique(entries.begin(), entries.end(), same), entries.end());
  return entries;
}

size_t nearest(const std::vector<Entry>& entries, double value) {
  const auto above = std::lower_bound(entries.begin(), entries.end(), value, [](const Entry& e, double v) { return e.value < v; });
  if (above == entries.begin()) return 0;
  const size_t k = static_cast<size_t>(above - entries.begin());
  return k == entries.size() || value - entries[k - 1].value <= entries[k].value - value ? k - 1 : k;
}

}  // namespace

void encode_base_palette(Bytes& out, const ChunkInput& in, EncodeScratch& s) {
  const size_t size = kDtypes[in.dtype].unit_bytes();
  const std::vector<Entry> entries = rounded_entries(*in.levels->book, in.dtype);
  std::vector<uint64_t> units;  // in the order of the block: that of unsigned integers
  for (const Entry& e : entries) units.push_back(e.unit);
  std::sort(units.begin(), units.end());
  std::vector<uint8_t> place;
  for (const Entry& e : entries)
    place.push_back(static_cast<uint8_t>(std::lower_bound(units.begin(), units.end(), e.unit) - units.begin()));

  std::vector<size_t> exceptions;
  s.symbols.resize(in.n);
  for (size_t i = 0; i < in.n; ++i) {
    const double base = unit_to_double(in.base + i * size, in.dtype);
    const double difference = unit_to_double(in.units + i * size, in.dtype) - base;
    const size_t k = std::isfinite(difference) ? nearest(entries, difference) : 0;
    s.symbols[i] = place[k];
    uint64_t result = 0;
    double_to_unit(base + entries[k].value, in.dtype, reinterpret_cast<uint8_t*>(&result));
    const bool comes_back = std::isfinite(unit_to_double(reinterpret_cast<const uint8_t*>(&result), in.dtype));
    if (!std::isfinite(difference) || !comes_back) exceptions.push_back(i);
  }
  append_block_header(out, Mode::base_palette, 0);
  append_exceptions(out, exceptions, in);
  out.push_back(static_cast<uint8_t>(units.size() - 1));
  for (const uint64_t unit : units) append_bytes(out, &unit, size);
  encode_symbols(out, s.symbols.data(), in.n, nullptr, 1, s);
}

}  // namespace limosa
