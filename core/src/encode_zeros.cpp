// Zeros, and values that repeat in a row, apart from the units that have to say something of their own
// (docs/format.md 3.6, 3.15).
#include "encode_fields.hpp"

namespace limosa {
namespace {

constexpr size_t kLeastShare = 16;   // a mask is worth it when one unit in so many is zero
constexpr size_t kRepeatShare = 64;  // of the units: fewer repeats than this are left to the zero mask
constexpr uint32_t kFewRepeats = 3;  // in a row: below, the value costs as much as it saves

enum Kind : uint8_t { zero = 0, own = 1, common = 2, of_row = 3 };

template <class T>
T unit_at(const uint8_t* units, size_t i) {
  T v;
  std::memcpy(&v, units + i * sizeof(T), sizeof(T));
  return v;
}

template <class T>
struct Plan {
  T common = 0;           // 0: none
  std::vector<T> of_rows;  // 0: none
  size_t repeats = 0;     // units that are one of these
};

// The largest number, if many units are it: what an activation like ReLU6 or a hard sigmoid cuts off.
template <class T>
T most_at_ceiling(const uint8_t* units, size_t n, size_t* count) {
  using Signed = std::make_signed_t<T>;
  Signed most = 0;
  for (size_t i = 0; i < n; ++i) most = std::max(most, static_cast<Signed>(unit_at<T>(units, i)));
  size_t found = 0;
  for (size_t i = 0; i < n; ++i) found += static_cast<Signed>(unit_at<T>(units, i)) == most;
  if (most == 0 || found * kRepeatShare < n) return 0;
  *count = found;
  return static_cast<T>(most);
}

// The value of a row that stands beside itself most often: where a layer sees nothing but zeros it says its bias.
template <class T>
T repeated_in(const uint8_t* units, size_t n, T common, uint32_t* count) {
  T candidate = 0;
  uint32_t votes = 0;
  T before = unit_at<T>(units, 0);
  for (size_t i = 1; i < n; ++i) {
    const T u = unit_at<T>(units, i);
    const bool repeats = u == before && u != 0 && u != common;
    before = u;
    if (!repeats) continue;
    if (u == candidate) ++votes;
    else if (votes) --votes;
    else {
      candidate = u;
      votes = 1;
    }
  }
  if (!candidate) return 0;
  uint32_t found = 0;
  for (size_t i = 0; i < n; ++i) found += unit_at<T>(units, i) == candidate;
  if (found < kFewRepeats) return 0;
  *count = found;
  return candidate;
}

template <class T>
Plan<T> plan_repeats(const uint8_t* units, const Rows& rows) {
  Plan<T> plan;
  plan.common = most_at_ceiling<T>(units, rows.n, &plan.repeats);
  plan.of_rows.resize(rows.count(), 0);
  rows.each([&](size_t row, size_t, size_t at, size_t n) {
    uint32_t count = 0;
    plan.of_rows[row] = repeated_in<T>(units + at * sizeof(T), n, plan.common, &count);
    plan.repeats += count;
  });
  return plan;
}

// Fills `kinds` with one byte a unit and `rest` with the units of kind `own`, in order; returns their number.
template <class T>
size_t sort_out(const uint8_t* units, const Rows& rows, const Plan<T>& plan, uint8_t* kinds, uint8_t* rest) {
  size_t count = 0;
  rows.each([&](size_t row, size_t, size_t at, size_t n) {
    const T of_this = plan.of_rows[row];
    const uint8_t* from = units + at * sizeof(T);
    for (size_t i = 0; i < n; ++i) {
      const T u = unit_at<T>(from, i);
      kinds[at + i] = static_cast<uint8_t>(u == 0 ? zero : u == of_this ? of_row : u == plan.common ? common : own);
    }
    for (size_t i = 0; i < n; ++i) {
      std::memcpy(rest + count * sizeof(T), from + i * sizeof(T), sizeof(T));
      count += kinds[at + i] == own;
    }
  });
  return count;
}

// Four kinds of two bits each in a byte, in place; `kinds` is padded with zeros.
size_t pack_kinds(uint8_t* kinds, size_t n) {
  const size_t bytes = (n + 3) / 4;
  for (size_t i = 0; i < bytes; ++i) {
    uint32_t w;
    std::memcpy(&w, kinds + 4 * i, 4);
    kinds[i] = static_cast<uint8_t>(w | w >> 6 | w >> 12 | w >> 18);
  }
  return bytes;
}

template <class T>
void append_values(Bytes& out, const Plan<T>& plan, EncodeScratch& s) {
  out.push_back(plan.common != 0);
  if (plan.common) append(out, plan.common);
  Bytes which((plan.of_rows.size() + 7) / 8, 0);
  size_t count = 0;
  for (size_t row = 0; row < plan.of_rows.size(); ++row)
    if (plan.of_rows[row]) {
      which[row / 8] |= static_cast<uint8_t>(1u << (row % 8));
      ++count;
    }
  append_varint(out, count);
  encode_symbols(out, which.data(), which.size(), nullptr, 1, s);
  for (const T v : plan.of_rows)
    if (v) append(out, v);
}

template <class T>
bool encode_repeats_of(Bytes& out, const uint8_t* units, const Rows& rows, const Dtype& d, EncodeScratch& s) {
  const Plan<T> plan = plan_repeats<T>(units, rows);
  if (plan.repeats * kRepeatShare < rows.n) return false;
  s.classes.assign((rows.n + 3) / 4 * 4, 0);
  s.units.resize(rows.n * sizeof(T) + sizeof(T));
  const size_t count = sort_out<T>(units, rows, plan, s.classes.data(), s.units.data());
  append_block_header(out, Mode::repeats, rows.n);
  append_varint(out, rows.columns);
  append_varint(out, rows.first);
  append_values(out, plan, s);
  append_varint(out, count);
  encode_symbols(out, s.classes.data(), pack_kinds(s.classes.data(), rows.n), nullptr, 1, s);
  if (count) append_plain(out, s.units.data(), count, d, s);
  return true;
}

// Units that are zero, or equal to the one before.
template <class T>
size_t count_idle(const uint8_t* units, size_t n) {
  size_t count = unit_at<T>(units, 0) == 0;
  for (size_t i = 1; i < n; ++i) {
    const T u = unit_at<T>(units, i);
    count += (u == 0) | (u == unit_at<T>(units, i - 1));
  }
  return count;
}

template <class T>
size_t mask_units(const uint8_t* units, size_t n, uint8_t* mask, uint8_t* rest) {
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    std::memcpy(rest + count * sizeof(T), units + i * sizeof(T), sizeof(T));
    const bool some = unit_at<T>(units, i) != 0;
    mask[i / 8] |= static_cast<uint8_t>(some << (i % 8));
    count += some;
  }
  return count;
}

}  // namespace

size_t zeros_and_repeats(const uint8_t* units, size_t n, const Dtype& d) {
  const size_t size = d.unit_bytes();
  return size == 1   ? count_idle<uint8_t>(units, n)
         : size == 2 ? count_idle<uint16_t>(units, n)
         : size == 4 ? count_idle<uint32_t>(units, n)
                     : count_idle<uint64_t>(units, n);
}

bool encode_repeats(Bytes& out, const uint8_t* units, const Rows& rows, const Dtype& d, EncodeScratch& s) {
  if (!d.is_float()) return false;
  switch (d.unit_bits) {
    case 16: return encode_repeats_of<uint16_t>(out, units, rows, d, s);
    case 32: return encode_repeats_of<uint32_t>(out, units, rows, d, s);
    case 64: return encode_repeats_of<uint64_t>(out, units, rows, d, s);
    default: return false;
  }
}

bool encode_zero_mask(Bytes& out, const uint8_t* units, size_t n, const Dtype& d, EncodeScratch& s) {
  const size_t size = d.unit_bytes();
  s.mask.assign((n + 7) / 8, 0);
  s.units.resize((n + 1) * size);
  const size_t count = size == 1   ? mask_units<uint8_t>(units, n, s.mask.data(), s.units.data())
                       : size == 2 ? mask_units<uint16_t>(units, n, s.mask.data(), s.units.data())
                       : size == 4 ? mask_units<uint32_t>(units, n, s.mask.data(), s.units.data())
                                   : mask_units<uint64_t>(units, n, s.mask.data(), s.units.data());
  if ((n - count) * kLeastShare < n || count == 0) return false;
  append_block_header(out, Mode::zero_mask, n);
  append_varint(out, count);
  encode_symbols(out, s.mask.data(), s.mask.size(), nullptr, 1, s);
  append_plain(out, s.units.data(), count, d, s);
  return true;
}

}  // namespace limosa
