// Many tensors at once over threads: chunks are the unit of work, their order in the output is fixed.
#pragma once
#include <functional>

#include "limosa/chunk.hpp"

namespace limosa {

// Runs job(worker, index) for all indices below count on `threads` threads; the first exception is rethrown.
void run_parallel(size_t count, unsigned threads, const std::function<void(unsigned, size_t)>& job);

}  // namespace limosa
