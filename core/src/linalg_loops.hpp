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

void add(double* y, const double* x, double t, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] += t * x[i];
}

void rotate(double* x, double* y, double c, double s, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const double a = x[i], b = y[i];
    x[i] = c * a - s * b;
    y[i] = s * a + c * b;
  }
}
