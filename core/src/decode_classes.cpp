// Rows, columns and their classes (docs/format.md 3.11, 3.14).
#include "decode_block.hpp"

namespace limosa {

Rows read_rows(Reader& r, size_t n) {
  const uint64_t columns = r.varint(), first = r.varint();
  if (columns >> 62 || first >= columns) r.corrupt("rows of a block");
  return {n, static_cast<size_t>(columns), static_cast<size_t>(first)};
}

Bytes read_symbols(Reader& r, size_t n, const Block& b) {
  Bytes symbols(n);
  SymbolDecoder decoder;
  decoder.begin(r, n, 1, b.s.table);
  decoder.next(symbols.data(), nullptr, n);
  decoder.finish();
  return symbols;
}

unsigned read_class_count(Reader& r, unsigned least) {
  const unsigned count = r.number<uint8_t>();
  if (count < least || count > kMaxClasses) r.corrupt("number of classes");
  return count;
}

RowClasses read_row_classes(Reader& r, const Rows& rows, unsigned count, const Block& b) {
  if (rows.columns > kChunkUnits) r.corrupt("classes of more columns than a chunk has units");
  RowClasses lists{count, read_symbols(r, rows.count(), b), read_symbols(r, rows.columns, b)};
  for (const Bytes* list : {&lists.rows, &lists.columns})
    for (const uint8_t c : *list)
      if (c >= kMaxContexts) r.corrupt("class of a row or column");
  return lists;
}

}  // namespace limosa
