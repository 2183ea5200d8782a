// The loops of exact linear algebra, included within an unnamed namespace by one file for each instruction set.
// Lanes are spelled out, so that a compiler can use vectors without changing the order of a sum.

constexpr size_t kSumLanes = 8;

double dot(const double* a, const double* b, size_t n) {
  double lanes[kSumLanes] = {};
  size_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    for (size_t j = 0; j < kSumLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  for (size_t j = 0; i < n; ++i, ++j) lanes[j] += a[i] * b[i];
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

void subtract(double* y, const double* x, double t, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] -= t * x[i];
}

// Four rows at a time, which leaves the order of each sum as it is and spares three passes over y.
void add_rows(double* y, const double* rows, const double* t, size_t count, size_t n) {
  size_t k = 0;
  for (; k + 4 <= count; k += 4) {
    const double *a = rows + k * n, *b = a + n, *c = b + n, *d = c + n;
    const double ta = t[k], tb = t[k + 1], tc = t[k + 2], td = t[k + 3];
    for (size_t i = 0; i < n; ++i) y[i] = (((y[i] + ta * a[i]) + tb * b[i]) + tc * c[i]) + td * d[i];
  }
  for (; k < count; ++k) {
    const double* a = rows + k * n;
    const double ta = t[k];
    for (size_t i = 0; i < n; ++i) y[i] += ta * a[i];
  }
}

void rotate(double* x, double* y, double c, double s, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const double a = x[i], b = y[i];
    x[i] = c * a - s * b;
    y[i] = s * a + c * b;
  }
}
