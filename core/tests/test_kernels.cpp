// Every table of kernels that this machine has against the portable one.
#include "compare_kernels.hpp"
#include "compare_levels.hpp"

using namespace limosa;

int main() {
  const Kernels& scalar = *find_kernels("scalar");
  CHECK(find_kernels("none") == nullptr);
  CHECK(!select_kernels("none"));
  for (const char* const* name = kernel_names(); *name; ++name) {
    const Kernels* tested = find_kernels(*name);
    CHECK(tested != nullptr && std::string(tested->name) == *name);
    std::printf("%s\n", *name);
    testing::Comparison(scalar, *tested).all();
    testing::LevelsComparison(scalar, *tested).all();
  }
}
