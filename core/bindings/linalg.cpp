// Exact linear algebra and streams of levels for Python: checks, allocates, lets go of the GIL, raises.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "limosa/context_coder.hpp"
#include "limosa/format.hpp"
#include "limosa/linalg.hpp"

namespace nb = nanobind;
using namespace limosa;

namespace {

using Bytes1 = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Levels = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A new array of Python's, of which the memory is handed over.
template <class T>
struct Result {
  explicit Result(size_t n) : data(new T[std::max<size_t>(n, 1)]) {}

  nb::object array(std::vector<size_t> shape) {
    nb::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
    T* memory = data.release();
    return nb::cast(nb::ndarray<nb::numpy, T>(memory, shape.size(), shape.data(), owner));
  }

  std::unique_ptr<T[]> data;
};

// Rounding to nearest and subnormal numbers kept, whatever the caller's thread has set: torch.set_flush_denormal and
// libraries built with -ffast-math change both.
class PlainArithmetic {
 public:
  PlainArithmetic() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~PlainArithmetic() { std::fesetenv(&before_); }
  PlainArithmetic(const PlainArithmetic&) = delete;
  PlainArithmetic& operator=(const PlainArithmetic&) = delete;

 private:
  std::fenv_t before_;
};

// Matrices without columns or rows weigh nothing, so that the size of their product is anything.
size_t product_size(const Matrix& a, const Matrix& b) {
  if (a.shape(1) != b.shape(0)) throw nb::value_error("the matrices do not fit each other");
  const size_t o = a.shape(0), i = b.shape(1);
  if (i && o > (size_t{1} << 48) / i) throw nb::value_error("the product is too large");
  return o * i;
}

nb::tuple svd_of(const Matrix& a) {
  const size_t o = a.shape(0), i = a.shape(1), m = std::min(o, i);
  if (!std::all_of(a.data(), a.data() + o * i, [](double x) { return std::isfinite(x); }))
    throw nb::value_error("a value is not finite");
  Result<double> u(o * m), s(m), vt(m * i);
  if (m) {
    std::vector<double> scratch(svd_scratch(o, i));
    const nb::gil_scoped_release release;
    const PlainArithmetic plain;
    svd(a.data(), o, i, u.data.get(), s.data.get(), vt.data.get(), scratch.data());
  }
  return nb::make_tuple(u.array({o, m}), s.array({m}), vt.array({m, i}));
}

nb::object matmul(const Matrix& a, const Matrix& b) {
  const size_t o = a.shape(0), k = a.shape(1), i = b.shape(1);
  Result<double> out(product_size(a, b));
  {
    const nb::gil_scoped_release release;
    const PlainArithmetic plain;
    for (size_t r = 0; r < o; ++r) product_row(a.data() + r * k, b.data(), k, i, out.data.get() + r * i);
  }
  return out.array({o, i});
}

nb::object merge(const std::optional<Bytes1>& base, unsigned dtype, const Matrix& left, const Matrix& right) {
  const size_t o = left.shape(0), k = left.shape(1), i = right.shape(1);
  const size_t n = product_size(left, right);
  if (dtype > 3) throw nb::value_error("dtype is none of F64, F32, F16, BF16");
  const size_t width = kDtypes[dtype].unit_bytes();
  if (base && base->size() != n * width) throw nb::value_error("base and matrices differ in size");
  Result<uint8_t> out(n * width);
  {
    const nb::gil_scoped_release release;
    const PlainArithmetic plain;
    std::vector<double> row(i);
    for (size_t r = 0; r < o; ++r) {
      product_row(left.data() + r * k, right.data(), k, i, row.data());
      const size_t at = r * i * width;
      add_rounded(base ? base->data() + at : nullptr, row.data(), i, static_cast<unsigned>(width),
                  kDtypes[dtype].mantissa_bits, out.data.get() + at);
    }
  }
  return out.array({n * width});
}

void check_columns(size_t n, uint64_t columns) {
  if (!columns || columns >= uint64_t{1} << 62) throw nb::value_error("columns out of range");
  if (n >= uint64_t{1} << 40) throw nb::value_error("too many levels");
}

nb::bytes encode_levels(const Levels& levels, uint64_t columns) {
  const size_t n = levels.shape(0);
  check_columns(n, columns);
  constexpr int32_t limit = 1 << kMaxLevelBits;
  for (size_t k = 0; k < n; ++k)
    if (levels.data()[k] <= -limit || levels.data()[k] >= limit) throw nb::value_error("a level is out of range");
  Bytes out;
  if (n) {
    const nb::gil_scoped_release release;
    EncodeScratch scratch;
    encode_adaptive(out, levels.data(), n, columns, 0, false, scratch);
  }
  return nb::bytes(reinterpret_cast<const char*>(out.data()), out.size());
}

// Raises ValueError for damaged levels: the caller knows where they are and says so.
nb::object decode_levels(const Bytes1& data, size_t n, uint64_t columns) {
  check_columns(n, columns);
  Result<int32_t> out(n);
  if (n) try {
      const nb::gil_scoped_release release;
      Reader reader(data.data(), data.size());
      DecodeScratch scratch;
      decode_adaptive(reader, out.data.get(), n, columns, 0, false, scratch);
      if (reader.left()) reader.corrupt("bytes follow the levels");
    } catch (const DecodeError& error) {
      throw nb::value_error(error.message.c_str());
    }
  return out.array({n});
}

}  // namespace

void bind_linalg(nb::module_& m) {
  using namespace nb::literals;
  // Nothing is converted: levels of 64 bits would lose their upper ones without a word.
  m.def("svd", &svd_of, "a"_a.noconvert());
  m.def("matmul", &matmul, "a"_a.noconvert(), "b"_a.noconvert());
  m.def("merge", &merge, "base"_a.noconvert().none(), "dtype"_a, "left"_a.noconvert(), "right"_a.noconvert());
  m.def("encode_levels", &encode_levels, "levels"_a.noconvert(), "columns"_a);
  m.def("decode_levels", &decode_levels, "data"_a.noconvert(), "n"_a, "columns"_a);
}
