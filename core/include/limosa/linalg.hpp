// Exact linear algebra (docs/format.md 8.4, 8.5): the same bits on every machine. Doubles, each sum in a stated
// order, only + - * / and sqrt, nothing contracted. Matrices are row-major. Kernels allocate nothing and cannot fail.
#pragma once
#include <cstddef>
#include <cstdint>

namespace limosa {

// The loops, compiled once for each instruction set. A sum has eight lanes: lane j adds up the elements j, j + 8 …
struct LinalgKernels {
  const char* name;
  double (*dot)(const double* a, const double* b, size_t n);
  void (*subtract)(double* y, const double* x, double t, size_t n);  // y -= t * x
  // y += t[k] * rows[k], k ascending; a row has n numbers.
  void (*add_rows)(double* y, const double* rows, const double* t, size_t count, size_t n);
  void (*rotate)(double* x, double* y, double c, double s, size_t n);  // x, y = c x - s y, s x + c y
};
const LinalgKernels& linalg_kernels();  // those that go with kernels()

// Doubles that `svd` needs beside its results.
size_t svd_scratch(size_t o, size_t i);
// a (o, i) = u (o, m) diag(s) vt (m, i), m = min(o, i) > 0, s descending; all of a is finite. Vectors of values below
// s[0] * 2^-40 are 0, and so are these values. The largest entry of each row of vt is positive.
void svd(const double* a, size_t o, size_t i, double* u, double* s, double* vt, double* scratch);

// Row of a product: out = sum over k, ascending, of left[k] * right[k], from 0 on.
void product_row(const double* left, const double* right, size_t k, size_t columns, double* out);

// units = base + addend, rounded once to the float dtype of `width` bytes and `mantissa` bits; where the addend is 0 or the
// base not finite, the base's bits. `base` null: +0 everywhere. A NaN becomes the quiet one without sign and payload.
void add_rounded(const uint8_t* base, const double* addend, size_t n, unsigned width, unsigned mantissa, uint8_t* units);

}  // namespace limosa
