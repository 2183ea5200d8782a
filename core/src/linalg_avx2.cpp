#include "limosa/linalg.hpp"

namespace limosa {
namespace {
#include "linalg_loops.hpp"
}  // namespace

extern const LinalgKernels kLinalgAvx2;
const LinalgKernels kLinalgAvx2 = {"avx2", dot, subtract, add_rows, rotate};

}  // namespace limosa
