#include "limosa/linalg.hpp"

namespace limosa {
namespace {
#include "linalg_loops.hpp"
}  // namespace

extern const LinalgKernels kLinalgAvx512;
const LinalgKernels kLinalgAvx512 = {"avx512", dot, subtract, add_rows, rotate};

}  // namespace limosa
