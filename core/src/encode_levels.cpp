// Units to levels (docs/format.md 3.11).
#include "encode_levels.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "limosa/context_coder.hpp"

namespace limosa {
namespace {

constexpr float kNearlyInfinite = 1e38f;
constexpr double kMostLevels = 1 << 20;  // beyond, a level in binary32 is not exact to a small part of the step

float round_step(float step) {
  uint32_t bits;
  std::memcpy(&bits, &step, 4);
  bits &= 0xfffff000;
  std::memcpy(&step, &bits, 4);
  return step;
}

// The scale whose step is nearest to `wanted` in the logarithm, or as near as scales go.
uint8_t scale_for(double wanted, double step) {
  unsigned low = 0, high = 255;
  while (low < high) {
    const unsigned middle = (low + high + 1) / 2;
    if (row_step(step, static_cast<uint8_t>(middle)) <= wanted) low = middle;
    else high = middle - 1;
  }
  if (low == 255) return 255;
  const double below = row_step(step, static_cast<uint8_t>(low)), above = row_step(step, static_cast<uint8_t>(low + 1));
  return static_cast<uint8_t>(below * above < wanted * wanted ? low + 1 : low);
}

class LevelsEncoder {
 public:
  LevelsEncoder(const ChunkInput& in, EncodeScratch& s)
      : in_(in), request_(*in.levels), d_(kDtypes[in.dtype]), s_(s) {
    plan_.rows = {in.n, in.columns ? in.columns : in.n, in.columns ? in.first_column : 0};
    plan_.step = round_step(request_.step);
    plan_.dependent = request_.dependent && !request_.signs_only;
    plan_.adaptive = request_.adaptive && !request_.signs_only;
  }

  void run(Bytes& out) {
    set_targets();
    if (request_.signs_only || request_.row_scales) set_scales();
    if (!request_.signs_only)
      each_step([&](double step, size_t at, size_t n) { except(at, n, static_cast<float>(kMostLevels * step)); });
    std::sort(exceptions_.begin(), exceptions_.end());
    if (request_.signs_only) {
      signs();
    } else {
      set_fixed();
      plan_classes(plan_, in_, s_);
      if (aligned()) align_signs();
      if (plan_.dependent) encode_trellis(plan_, request_, s_);
      else plain();
    }
    verify();
    write(out);
  }

 private:
  void set_targets() {
    s_.targets.resize(in_.n);
    if (!kernels().level_targets(in_.units, in_.base, d_.unit_bits, d_.mantissa_bits, in_.n, s_.targets.data()))
      except(0, in_.n, std::numeric_limits<float>::max());
  }

  // Units whose targets are not finite or above `most` become exceptions, their targets zero.
  void except(size_t at, size_t n, float most) {
    float* t = s_.targets.data() + at;
    bool large = false;
    for (size_t i = 0; i < n; ++i) large |= !(std::fabs(t[i]) <= most);
    for (size_t i = 0; large && i < n; ++i) {
      if (std::fabs(t[i]) <= most) continue;
      t[i] = 0;
      exceptions_.push_back(at + i);
    }
  }

  // Mean magnitude (signs) or root mean square of each row, times the step that was asked for.
  void set_scales() {
    std::vector<double> wanted(plan_.rows.count());
    double largest = 0;
    plan_.rows.each([&](size_t row, size_t, size_t at, size_t n) {
      double sum = 0;
      for (size_t i = at; i < at + n; ++i) {
        const double t = s_.targets[i];
        sum += request_.signs_only ? std::fabs(t) : t * t;
      }
      sum /= static_cast<double>(n);
      wanted[row] = request_.signs_only ? sum : std::sqrt(sum) * request_.step;
      largest = std::max(largest, wanted[row]);
    });
    int exponent = 0;
    std::frexp(largest, &exponent);
    plan_.step = std::ldexp(1.0f, std::min(std::max(exponent, -125), 126));
    plan_.scales.resize(wanted.size());
    for (size_t row = 0; row < wanted.size(); ++row) plan_.scales[row] = scale_for(wanted[row], plan_.step);
  }

  // f(step of these units, place, count), row by row if their steps differ.
  template <class F>
  void each_step(F&& f) {
    if (plan_.scales.empty()) return f(double{plan_.step}, size_t{0}, in_.n);
    plan_.rows.each([&](size_t row, size_t, size_t at, size_t n) { f(row_step(plan_.step, plan_.scales[row]), at, n); });
  }

  void signs() {
    s_.levels.resize(in_.n);
    for (size_t i = 0; i < in_.n; ++i) s_.levels[i] = s_.targets[i] > 0 ? 2 : s_.targets[i] < 0 ? 1 : 0;
  }

  // Levels are targets times this. Finite also for the least steps, whose targets are too small to matter.
  static float scale(double one, double step) { return static_cast<float>(std::min(one / step, 1e36)); }

  void set_fixed() {
    s_.fixed.resize(in_.n);
    each_step([&](double step, size_t at, size_t n) {
      kernels().to_fixed(s_.targets.data() + at, scale(kFixedOne, step), n, s_.fixed.data() + at);
    });
  }

  // Adaptive levels have classes for the rates of the trellis only.
  ClassSource written_source() const { return plan_.adaptive ? ClassSource::none : plan_.source; }
  bool aligned() const { return written_source() == ClassSource::base_exponent; }

  void align_signs() {
    for (size_t i = 0; i < in_.n; ++i) {
      if (!is_negative(in_.base + i * d_.unit_bytes(), d_.unit_bytes())) continue;
      s_.fixed[i] = -s_.fixed[i];
      s_.targets[i] = -s_.targets[i];
    }
  }

  void round(float zero, float offset) {
    each_step([&](double step, size_t at, size_t n) {
      kernels().quantize(s_.targets.data() + at, scale(1, step), zero, offset, n, s_.levels.data() + at);
    });
  }

  // Rounding that leans to the smaller level by what it saves: lambda times the difference of their rates, halved.
  void plain() {
    s_.levels.resize(in_.n);
    round(0, 0.5f);
    uint64_t zeros = 0, sum = 0;
    for (const uint32_t z : s_.levels) {
      zeros += z == 0;
      sum += (z >> 1) + (z & 1);
    }
    const uint64_t others = in_.n - zeros;
    if (!(request_.lambda > 0) || others == 0) return;
    // A geometric distribution of the magnitudes above zero, whose mean is sum / others.
    const float each = bits_between(sum + 1, sum - others + 1);
    const float first = 1 + bits_between(zeros + 1, others + 1) + bits_between(sum + 1, others + 1);
    round(0.5f + lean(first), 0.5f - lean(each));
  }

  static float bits_between(uint64_t a, uint64_t b) {
    const auto log = [](uint64_t v) { return static_cast<float>(log2_fixed(static_cast<uint32_t>(std::min<uint64_t>(v, ~0u)))); };
    return (log(a) - log(b)) / 65536;
  }

  // By how much of a step, for a level that takes so many bits more than the one below it.
  float lean(float bits) const {
    float most = 0.49f;
    if (request_.max_error > 0) most = plan_.scales.empty() ? std::min(most, request_.max_error / plan_.step - 0.5f) : 0;
    return std::max(0.0f, std::min(most, request_.lambda * bits / 2));
  }

  // Adds the units that do not come back as they should to the exceptions.
  void verify() {
    const bool safe = request_.max_error <= 0 && !in_.base && in_.dtype != kDtypeF16 &&
                      std::all_of(s_.targets.begin(), s_.targets.end(), [](float t) { return std::fabs(t) < kNearlyInfinite; });
    if (safe) return;
    std::vector<int32_t> rho(in_.n);
    Bytes units(in_.n * d_.unit_bytes());
    reconstruct(rho.data(), units.data());
    std::vector<size_t> all;
    size_t next = 0;
    for (size_t i = 0; i < in_.n; ++i) {
      bool wrong = next < exceptions_.size() && exceptions_[next] == i;
      next += wrong;
      if (!wrong) {
        const double was = unit_to_double(in_.units + i * d_.unit_bytes(), in_.dtype);
        const double error = std::fabs(unit_to_double(units.data() + i * d_.unit_bytes(), in_.dtype) - was);
        wrong = !std::isfinite(error) || (request_.max_error > 0 && error > double{request_.max_error});
      }
      if (wrong) all.push_back(i);
    }
    exceptions_ = std::move(all);
  }

  void reconstruct(int32_t* rho, uint8_t* units) const {
    if (plan_.dependent) {
      Bytes quantizers(in_.n);
      for (size_t i = 0; i < in_.n; ++i) quantizers[i] = s_.contexts[i] >= plan_.classes;
      std::vector<int32_t> stream(in_.n);
      kernels().level_integers(s_.levels.data(), quantizers.data(), in_.n, stream.data());
      const size_t segments = segment_count(in_.n, plan_.adaptive), length = in_.n / segments;
      collect(stream.data(), segments, length, 0, length, rho);
      std::copy(stream.begin() + static_cast<long>(segments * length), stream.end(), rho + segments * length);
    } else {
      kernels().level_integers(s_.levels.data(), nullptr, in_.n, rho);
    }
    if (aligned())
      for (size_t i = 0; i < in_.n; ++i)
        if (is_negative(in_.base + i * d_.unit_bytes(), d_.unit_bytes())) rho[i] = -rho[i];
    dequantize_rows(plan_.rows, rho, plan_.step, plan_.scales.empty() ? nullptr : plan_.scales.data(), in_.base, in_.dtype,
                    units);
  }

  void write(Bytes& out) {
    const ClassSource source = written_source();
    append_block_header(out, in_.base ? Mode::base_levels : Mode::levels, 0);
    out.push_back(static_cast<uint8_t>((plan_.dependent ? dependent_levels : 0) | (plan_.scales.empty() ? 0 : scaled_rows) |
                                       static_cast<unsigned>(source) << 2 | (plan_.adaptive ? adaptive_levels : 0)));
    uint8_t step[4];
    std::memcpy(step, &plan_.step, 4);
    append_bytes(out, step + 1, 3);
    append_exceptions(out, exceptions_, in_);
    append_varint(out, plan_.rows.columns);
    append_varint(out, plan_.rows.first);
    if (!plan_.scales.empty()) encode_symbols(out, plan_.scales.data(), plan_.scales.size(), nullptr, 1, s_);
    if (source == ClassSource::base_exponent) {
      out.push_back(static_cast<uint8_t>(plan_.classes));
      append(out, static_cast<uint16_t>(plan_.first_exponent));
    }
    if (source == ClassSource::rows_and_columns) append_classes(out, plan_.lists, s_);
    append_levels(out);
  }

  void append_levels(Bytes& out) {
    if (plan_.adaptive) {
      s_.stream.resize(in_.n);
      for (size_t i = 0; i < in_.n; ++i) {
        const auto magnitude = static_cast<int32_t>((s_.levels[i] >> 1) + (s_.levels[i] & 1));
        s_.stream[i] = s_.levels[i] & 1 ? -magnitude : magnitude;
      }
      return encode_adaptive(out, s_.stream.data(), in_.n, plan_.rows.columns, plan_.rows.first, plan_.dependent, s_);
    }
    const auto* values = reinterpret_cast<const uint8_t*>(s_.levels.data());
    if (plan_.dependent) encode_integers(out, values, 32, in_.n, s_.contexts.data(), 2 * plan_.classes, s_, &kFinest32);
    else encode_integers(out, values, 32, in_.n, s_.classes.data(), plan_.classes, s_);
  }

  const ChunkInput& in_;
  const LevelsRequest& request_;
  const Dtype& d_;
  EncodeScratch& s_;
  LevelsPlan plan_{};
  std::vector<size_t> exceptions_;
};

}  // namespace

void append_exceptions(Bytes& out, const std::vector<size_t>& places, const ChunkInput& in) {
  const size_t size = kDtypes[in.dtype].unit_bytes();
  append_varint(out, places.size());
  size_t next = 0;
  for (const size_t at : places) {
    append_varint(out, at - next);
    append_bytes(out, in.units + at * size, size);
    next = at + 1;
  }
}

void encode_levels(Bytes& out, const ChunkInput& in, EncodeScratch& s) { LevelsEncoder(in, s).run(out); }

}  // namespace limosa
