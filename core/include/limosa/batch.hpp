// Many tensors at once over threads: chunks are the unit of work, their order in the output is fixed.
#pragma once
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "limosa/chunk.hpp"

namespace limosa {

// Runs job(worker, index) for all indices below count on `threads` threads; the first exception is rethrown.
void run_parallel(size_t count, unsigned threads, const std::function<void(unsigned, size_t)>& job);

// Brings frames that are finished in any order into the order of their numbers.
class FrameQueue {
 public:
  // Where the next `size` bytes of the output begin; called in the order of the numbers, one call at a time.
  using Place = std::function<uint8_t*(size_t number, size_t size)>;

  // `most`: frames that wait for earlier ones; after that, the threads do.
  FrameQueue(size_t most, Place place) : most_(most), place_(std::move(place)) {}

  // Copies the frame to its place, now or when its turn comes. `frame` may come back with another buffer.
  void put(size_t number, Bytes& frame);
  // Lets all through that wait and will come: a job before them failed.
  void open();

 private:
  const size_t most_;
  const Place place_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<size_t, Bytes> parked_;
  std::vector<Bytes> spare_;
  size_t next_ = 0;
  bool open_ = false;
};

}  // namespace limosa
