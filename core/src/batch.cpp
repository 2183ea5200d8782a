#include "limosa/batch.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

namespace limosa {

void run_parallel(size_t count, unsigned threads, const std::function<void(unsigned, size_t)>& job) {
  std::atomic<size_t> next{0};
  std::exception_ptr error;
  size_t error_at = count;
  std::mutex mutex;
  const auto work = [&](unsigned worker) {
    for (size_t i; (i = next.fetch_add(1)) < count;) {
      try {
        job(worker, i);
      } catch (...) {
        // The lowest failing index wins, so that the error does not depend on the number of threads: all below it
        // were taken before it.
        const std::lock_guard<std::mutex> lock(mutex);
        if (i < error_at) {
          error_at = i;
          error = std::current_exception();
        }
        next = count;
      }
    }
  };
  const unsigned extra = static_cast<unsigned>(std::min<size_t>(threads ? threads - 1 : 0, count ? count - 1 : 0));
  std::vector<std::thread> pool;
  pool.reserve(extra);
  for (unsigned k = 0; k < extra; ++k) pool.emplace_back(work, k + 1);
  work(0);
  for (std::thread& t : pool) t.join();
  if (error) std::rethrow_exception(error);
}

void FrameQueue::put(size_t number, Bytes& frame) {
  std::vector<std::pair<uint8_t*, Bytes>> placed;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (number != next_ && parked_.size() < most_) {
      parked_[number].swap(frame);
      if (!spare_.empty()) {
        frame.swap(spare_.back());
        spare_.pop_back();
      }
      return;
    }
    changed_.wait(lock, [&] { return open_ || next_ == number; });
    if (open_) return;
    placed.emplace_back(place_(next_++, frame.size()), std::move(frame));
    for (auto it = parked_.begin(); it != parked_.end() && it->first == next_; it = parked_.erase(it)) {
      placed.emplace_back(place_(next_, it->second.size()), std::move(it->second));
      ++next_;
    }
    changed_.notify_all();
  }
  // Places do not overlap, so threads copy side by side.
  for (const auto& [to, bytes] : placed) std::memcpy(to, bytes.data(), bytes.size());
  frame.swap(placed[0].second);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (size_t i = 1; i < placed.size(); ++i) spare_.push_back(std::move(placed[i].second));
}

void FrameQueue::open() {
  const std::lock_guard<std::mutex> lock(mutex_);
  open_ = true;
  changed_.notify_all();
}

}  // namespace limosa
