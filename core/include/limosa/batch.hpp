// Many tensors at once over threads: chunks are the unit of work, their order in the output is fixed.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>

#include "limosa/chunk.hpp"

namespace limosa {

// Runs job(worker, index) for all indices below count on `threads` threads; the first exception is rethrown.
void run_parallel(size_t count, unsigned threads, const std::function<void(unsigned, size_t)>& job);

// Lets jobs that ran in any order do one last thing in the order of their numbers.
class Turnstile {
 public:
  // Waits for the turn of `number`, runs `job`, and lets the next one through. Nothing runs after `open`.
  void pass(size_t number, const std::function<void()>& job);
  // Lets all through that wait and will come: a job before them failed.
  void open();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t next_ = 0;
  bool open_ = false;
};

}  // namespace limosa
