// Dependent levels: rates from a first look at the targets, then the trellis, and once more with the rates that it
// caused (docs/format.md 3.11).
#include "encode_levels.hpp"
#include "trellis.hpp"

namespace limosa {
namespace {

constexpr size_t kManyUnits = 65536;
constexpr int32_t kMostRate = 1 << 18;  // bounds the costs of a path
constexpr size_t kSample = 32768;       // targets that a first look takes

class TrellisEncoder {
 public:
  TrellisEncoder(const LevelsPlan& plan, const LevelsRequest& request, EncodeScratch& s)
      : s_(s), n_(plan.rows.n), segments_(segment_count(n_, plan.adaptive)), length_(n_ / segments_),
        by_tokens_(!plan.adaptive), classes_(plan.classes), rates_(2 * kRateStride * classes_), counts_(rates_.size()) {
    // Costs are in (step / kFixedOne)^2; the cut keeps the product below 64 bits.
    weight_ = static_cast<uint32_t>(std::min(request.lambda, 1000.0f) * (kFixedOne * kFixedOne) + 0.5f);
    const float most = request.max_error / plan.step * kFixedOne;
    most_ = request.max_error > 0 && plan.scales.empty() && most < kMaxFixed ? static_cast<int32_t>(most) : kMaxFixed;
    deal_all();
  }

  void run() {
    look();
    set_rates();
    // A part of each segment, since only its statistics are wanted.
    const size_t part = n_ >= kManyUnits ? length_ / 4 : length_;
    search(part, 0);
    count(part * segments_);
    set_rates();
    search(length_, n_ - length_ * segments_);
  }

 private:
  void deal_all() {
    s_.stream.resize(n_);
    s_.levels.resize(n_);
    s_.contexts.resize(n_);
    s_.decisions.resize(n_);
    spread(s_.fixed.data(), s_.stream.data());
    if (classes_ == 1) return;
    s_.stream_classes.resize(n_);
    spread(s_.classes.data(), s_.stream_classes.data());
  }

  template <class T>
  void spread(const T* units, T* stream) {
    deal(units, segments_, length_, 0, length_, stream);
    std::copy(units + segments_ * length_, units + n_, stream + segments_ * length_);
  }

  uint32_t* counts(unsigned of_class, unsigned quantizer) {
    return counts_.data() + (2 * of_class + quantizer) * kRateStride + 1;
  }

  // As if each target were rounded to either neighbour in either quantizer, the more often the nearer it is.
  void look() {
    std::fill(counts_.begin(), counts_.end(), 0);
    const size_t stride = 1 + n_ / kSample;
    for (size_t i = 0; i < n_; i += stride) {
      const int32_t x = s_.fixed[i], a = std::min(x < 0 ? -x : x, int32_t{kRateLevels - 1} * 2 * kFixedOne);
      const unsigned c = classes_ > 1 ? s_.classes[i] : 0;
      for (int quantizer = 0; quantizer < 2; ++quantizer) {
        const int32_t shift = quantizer * kFixedOne, k = (a + shift) >> 7, d = (a + shift) & 127;
        const bool half = quantizer && k == 0;  // from 0 to 1 it is one step
        const uint32_t above = static_cast<uint32_t>(half ? 2 * (d - shift) : d);
        counts(c, static_cast<unsigned>(quantizer))[k] += 128 - above;
        counts(c, static_cast<unsigned>(quantizer))[k + 1] += above;
      }
    }
  }

  void count(size_t n) {
    std::fill(counts_.begin(), counts_.end(), 0);
    for (size_t i = 0; i < n; ++i) {
      const uint32_t z = s_.levels[i], level = std::min((z >> 1) + (z & 1), uint32_t{kRateLevels});
      const unsigned context = s_.contexts[i], quantizer = context >= classes_;
      counts(context - quantizer * classes_, quantizer)[level] += 4;
    }
  }

  void set_rates() {
    for (unsigned table = 0; table < 2 * classes_; ++table) {
      const uint32_t* c = counts_.data() + size_t{table} * kRateStride + 1;
      int32_t* r = rates_.data() + size_t{table} * kRateStride + 1;
      uint32_t total = 1;
      for (unsigned k = 0; k <= kRateLevels; ++k) total += c[k] + 1;
      r[-1] = kMostRate;
      for (unsigned k = 0; k <= kRateLevels; ++k) {
        const uint64_t bits = log2_fixed(total) - log2_fixed(c[k] + 1) + (k ? 1u << 16 : 0u);
        r[k] = static_cast<int32_t>(std::min<uint64_t>(bits * weight_ >> 16, kMostRate));
      }
    }
  }

  TrellisInput input(size_t from, size_t groups) const {
    return {s_.stream.data() + from, classes_ > 1 ? s_.stream_classes.data() + from : nullptr, classes_, rates_.data(),
            most_, by_tokens_, groups};
  }

  // The first `groups` of all segments, and `rest` units with which the last one goes on.
  void search(size_t groups, size_t rest) {
    const Kernels& k = kernels();
    const bool single = segments_ == 1;
    const size_t dealt = segments_ * length_;
    int32_t costs[kTrellisStates * kLanes];
    for (size_t i = 0; i < kTrellisStates * segments_; ++i) costs[i] = i < segments_ ? 0 : kUnreached;
    const TrellisInput all = input(0, groups);
    k.trellis_forward[single](all, costs, s_.decisions.data());
    uint8_t states[kLanes];
    for (size_t l = 0; l < segments_; ++l) states[l] = cheapest(costs + l, segments_);
    if (rest) {
      const TrellisInput after = input(dealt, rest);
      int32_t last[kTrellisStates];
      for (size_t s = 0; s < kTrellisStates; ++s) last[s] = costs[s * segments_ + segments_ - 1];
      k.trellis_forward[1](after, last, s_.decisions.data() + dealt);
      states[segments_ - 1] = cheapest(last, 1);
      k.trellis_back[1](after, s_.decisions.data() + dealt, states + segments_ - 1, s_.levels.data() + dealt,
                        s_.contexts.data() + dealt);
    }
    k.trellis_back[single](all, s_.decisions.data(), states, s_.levels.data(), s_.contexts.data());
  }

  static uint8_t cheapest(const int32_t* costs, size_t stride) {
    uint8_t best = 0;
    for (uint8_t s = 1; s < kTrellisStates; ++s)
      if (costs[s * stride] < costs[best * stride]) best = s;
    return best;
  }

  static constexpr int32_t kUnreached = 1 << 24;

  EncodeScratch& s_;
  size_t n_, segments_, length_;
  bool by_tokens_;
  unsigned classes_;
  uint32_t weight_;
  int32_t most_;
  std::vector<int32_t> rates_;
  std::vector<uint32_t> counts_;
};

}  // namespace

void encode_trellis(const LevelsPlan& plan, const LevelsRequest& request, EncodeScratch& s) {
  TrellisEncoder(plan, request, s).run();
}

}  // namespace limosa
