#include "limosa/batch.hpp"

#include <algorithm>
#include <atomic>
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

void Turnstile::pass(size_t number, const std::function<void()>& job) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return open_ || next_ == number; });
  if (open_) return;
  job();
  ++next_;
  changed_.notify_all();
}

void Turnstile::open() {
  const std::lock_guard<std::mutex> lock(mutex_);
  open_ = true;
  changed_.notify_all();
}

}  // namespace limosa
