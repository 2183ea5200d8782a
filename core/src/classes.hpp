// Rows and columns of the units of a block, and the classes that these give them (docs/format.md 3.11, 3.14): units of
// one class share a frequency table.
#pragma once
#include <algorithm>

#include "limosa/rans.hpp"

namespace limosa {

// The n units of a block in rows: the first unit stands in column `first`.
struct Rows {
  size_t n, columns, first;

  size_t count() const { return (first + n + columns - 1) / columns; }

  // f(row, column of the first unit, its place, number of units) for each row.
  template <class F>
  void each(F&& f) const {
    size_t at = 0;
    for (size_t row = 0, column = first; at < n; ++row, column = 0) {
      const size_t end = std::min(n, at + (columns - column));
      f(row, column, at, end - at);
      at = end;
    }
  }
};

// Symbols of the rows and of the columns, and the number of classes.
struct RowClasses {
  unsigned count = 1;
  Bytes rows, columns;
};

// The class of each unit; the first row is number `row` of the lists.
inline void fill_classes(const Rows& rows, const RowClasses& lists, size_t row, uint8_t* classes) {
  const uint8_t last = static_cast<uint8_t>(lists.count - 1);
  rows.each([&](size_t k, size_t column, size_t at, size_t n) {
    const uint8_t of_row = lists.rows[row + k], *of_columns = lists.columns.data() + column;
    for (size_t i = 0; i < n; ++i) classes[at + i] = std::min(static_cast<uint8_t>(of_row + of_columns[i]), last);
  });
}

// ---- encoding ----

// Mean magnitudes of rows or columns, as logarithms whose unit is kOctave, with the units that each stands for.
constexpr int64_t kOctave = 65536;
struct Profile {
  std::vector<int64_t> log;
  std::vector<uint32_t> units;
  int64_t mean = 0, deviation = 0;

  explicit Profile(size_t n) : log(n), units(n) {}
  void summarise(size_t n);
};

// True if the lists are too long for what they can save.
bool too_many_lists(const Rows& rows);
// No classes (count 1) where rows and columns are too much alike.
RowClasses make_classes(const Profile& rows, const Profile& columns, unsigned count);
// Bits of the lists, roughly.
uint64_t lists_bits(const RowClasses& lists);
// The number of classes and both lists.
void append_classes(Bytes& out, const RowClasses& lists, EncodeScratch& scratch);

}  // namespace limosa
