// Singular values by one-sided Jacobi rotations behind a QR decomposition; every step is in docs/format.md 8.5.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "limosa/linalg.hpp"

namespace limosa {
namespace {

constexpr double kOrthogonal = 0x1p-46;  // cosine of two vectors that count as orthogonal
constexpr double kNull = 0x1p-40;        // share of the largest value below which one is 0
constexpr int kMaxSweeps = 40;
constexpr size_t kRowsAtOnce = 8;        // so that a reflector is read once for several rows

// One reflector, in v[j..n), beta being 2 / (v . v); 0 for none.
void reflect(const LinalgKernels& loops, double* row, const double* v, double beta, size_t j, size_t n) {
  if (beta == 0.0) return;
  loops.subtract(row + j, v + j, loops.dot(v + j, row + j, n - j) * beta, n - j);
}

// Makes the reflector of row j from the row, in place, and returns the row's element of R.
double make_reflector(const LinalgKernels& loops, double* row, size_t j, size_t n, double* beta) {
  const double square = loops.dot(row + j, row + j, n - j);
  if (square == 0.0) {
    *beta = 0.0;
    return 0.0;
  }
  const double norm = std::sqrt(square);
  const double diagonal = row[j] > 0.0 ? -norm : norm;
  *beta = 1.0 / (square - row[j] * diagonal);
  row[j] -= diagonal;
  return diagonal;
}

// The rows of b (m, n), m <= n, as a product r^T q: r (m, m) is upper triangular. Overwrites b.
void triangular(double* b, size_t m, size_t n, double* r, double* beta) {
  const LinalgKernels& loops = linalg_kernels();
  std::fill(r, r + m * m, 0.0);
  for (size_t first = 0; first < m; first += kRowsAtOnce) {
    const size_t last = std::min(first + kRowsAtOnce, m);
    for (size_t j = 0; j < first; ++j)
      for (size_t k = first; k < last; ++k) reflect(loops, b + k * n, b + j * n, beta[j], j, n);
    for (size_t k = first; k < last; ++k) {
      double* row = b + k * n;
      for (size_t j = first; j < k; ++j) reflect(loops, row, b + j * n, beta[j], j, n);
      for (size_t j = 0; j < k; ++j) r[j * m + k] = row[j];
      r[k * m + k] = make_reflector(loops, row, k, n, beta + k);
    }
  }
}

// Rotates the rows of x (m, m) until each two are orthogonal.
void orthogonalize(double* x, size_t m, double* squares) {
  const LinalgKernels& loops = linalg_kernels();
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < kMaxSweeps; ++sweep) {
    rotated = false;
    for (size_t p = 0; p < m; ++p) squares[p] = loops.dot(x + p * m, x + p * m, m);
    for (size_t p = 0; p + 1 < m; ++p) {
      for (size_t q = p + 1; q < m; ++q) {
        const double product = loops.dot(x + p * m, x + q * m, m);
        // squares[q] of nearly dependent rows can have come out below 0: the limit is a NaN, and the pair waits a sweep.
        const double limit = kOrthogonal * std::sqrt(squares[p] * squares[q]);
        if (!(std::fabs(product) > limit)) continue;
        rotated = true;
        const double zeta = (squares[q] - squares[p]) / (2.0 * product);
        const double size = 1.0 / (std::fabs(zeta) + std::sqrt(1.0 + zeta * zeta));
        const double t = zeta < 0.0 ? -size : size;
        const double c = 1.0 / std::sqrt(1.0 + t * t), s = c * t;
        loops.rotate(x + p * m, x + q * m, c, s, m);
        squares[p] = std::max(0.0, squares[p] - t * product);
        squares[q] = squares[q] + t * product;
      }
    }
  }
}

// b (m, n) with m <= n: left (m, m) by columns in the rows of `leftT`, right (m, n) by rows.
void decompose_wide(const double* b, size_t m, size_t n, double* left_t, double* s, double* right, double* scratch) {
  const LinalgKernels& loops = linalg_kernels();
  double *x = scratch, *squares = x + m * m;
  std::memcpy(right, b, m * n * sizeof(double));
  triangular(right, m, n, x, squares);  // squares holds the betas here
  orthogonalize(x, m, squares);
  for (size_t k = 0; k < m; ++k) squares[k] = std::sqrt(loops.dot(x + k * m, x + k * m, m));
  // The largest first; of equal ones the first first.
  double largest = 0.0;
  for (size_t k = 0; k < m; ++k) {
    size_t best = m;
    for (size_t q = 0; q < m; ++q)
      if (squares[q] >= 0.0 && (best == m || squares[q] > squares[best])) best = q;
    const double value = squares[best];
    squares[best] = -1.0;
    if (k == 0) largest = value;
    s[k] = value < largest * kNull ? 0.0 : value;
    for (size_t j = 0; j < m; ++j) left_t[k * m + j] = s[k] > 0.0 ? x[best * m + j] / value : 0.0;
  }
  for (size_t k = 0; k < m; ++k) {
    double* row = right + k * n;
    std::fill(row, row + n, 0.0);
    if (s[k] == 0.0) continue;
    loops.add_rows(row, b, left_t + k * m, m, n);
    for (size_t j = 0; j < n; ++j) row[j] /= s[k];
  }
}

bool is_negative(const double* row, size_t n) {
  size_t largest = 0;
  for (size_t j = 1; j < n; ++j)
    if (std::fabs(row[j]) > std::fabs(row[largest])) largest = j;
  return row[largest] < 0.0;
}

// Flips pairs of vectors so that the largest entry of each row of vt is positive.
void canonical(double* u_t, double* vt, size_t o, size_t i, size_t m) {
  for (size_t k = 0; k < m; ++k) {
    if (!is_negative(vt + k * i, i)) continue;
    for (size_t j = 0; j < i; ++j) vt[k * i + j] = -vt[k * i + j];
    for (size_t j = 0; j < o; ++j) u_t[k * o + j] = -u_t[k * o + j];
  }
}

void transpose(const double* a, size_t rows, size_t columns, double* out) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < columns; ++c) out[c * rows + r] = a[r * columns + c];
}

}  // namespace

size_t svd_scratch(size_t o, size_t i) {
  const size_t m = std::min(o, i);
  return o * i + m * m + m + m * o;
}

void svd(const double* a, size_t o, size_t i, double* u, double* s, double* vt, double* scratch) {
  const size_t m = std::min(o, i);
  double largest = 0.0;
  for (size_t k = 0; k < o * i; ++k) largest = std::max(largest, std::fabs(a[k]));
  const int exponent = largest > 0.0 ? std::ilogb(largest) : 0;
  double *scaled = scratch, *work = scaled + o * i, *u_t = work + m * m + m;
  if (o > i) {
    transpose(a, o, i, scaled);
  } else {
    std::memcpy(scaled, a, o * i * sizeof(double));
  }
  for (size_t k = 0; k < o * i; ++k) scaled[k] = std::ldexp(scaled[k], -exponent);
  if (o > i) {
    decompose_wide(scaled, m, o, vt, s, u_t, work);  // of the transpose: left and right change places
  } else {
    decompose_wide(scaled, m, i, u_t, s, vt, work);
  }
  for (size_t k = 0; k < m; ++k) s[k] = std::ldexp(s[k], exponent);
  canonical(u_t, vt, o, i, m);
  transpose(u_t, m, o, u);
}

}  // namespace limosa
