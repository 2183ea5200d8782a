// Between the files of the levels encoder.
#pragma once
#include "levels.hpp"

namespace limosa {

// Everything of a block but its integers and exceptions.
struct LevelsPlan {
  Rows rows;
  float step;
  bool dependent, adaptive;
  Bytes scales;  // of the rows, or empty
  ClassSource source = ClassSource::none;
  unsigned classes = 1;
  unsigned first_exponent = 0;       // base_exponent
  RowClasses lists;                  // rows_and_columns
};

// The table of exceptions (docs/format.md 3.10), by their places in ascending order.
void append_exceptions(Bytes& out, const std::vector<size_t>& places, const ChunkInput& in);

// Chooses the classes that make the levels of s.fixed cheapest, tables and lists included, and fills s.classes.
void plan_classes(LevelsPlan& plan, const ChunkInput& in, EncodeScratch& s);

// The levels of s.fixed by Viterbi's algorithm: s.levels and s.contexts, in the order of the stream.
void encode_trellis(const LevelsPlan& plan, const LevelsRequest& request, EncodeScratch& s);

}  // namespace limosa
