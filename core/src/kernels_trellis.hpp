// The trellis encoder (docs/format.md 3.11): Viterbi's algorithm over integers. Part of kernels_loops.hpp.
//
// Targets x are in steps / 64; a cost is a squared error in (steps / 64)^2 plus the rate of the level. The quantizers have
// the levels 0, +-2, +-4 ... and 0, +-1, +-3 ...: q times 128, less 64 in the second. Levels are looked at as magnitudes,
// since the nearest ones never have the other sign. Around a magnitude a, k is the level at or below it: k and k + 1 are
// the nearest of either parity, and k - 1 may be the cheaper one of the parity of k + 1.

constexpr int32_t kNever = 1 << 24;        // above any cost between two normalisations
constexpr int32_t kTooFar = kNever / 64;  // more than any difference of rates
constexpr size_t kNormalise = 32;          // groups between them
constexpr int32_t kSpacing = 2 * kFixedOne;
constexpr int32_t kMostLevel = 62;         // k + 1 still has a token of its own
constexpr unsigned kLower = 1, kBeyond = 4;  // of choices: k - 1 instead of k + 1 (shifted by the quantizer); far out

// Predecessors of each state: state and parity.
constexpr int kBefore[8][2][2] = {{{0, 0}, {4, 1}}, {{2, 0}, {6, 1}}, {{0, 1}, {4, 0}}, {{2, 1}, {6, 0}},
                                  {{3, 1}, {7, 0}}, {{1, 1}, {5, 0}}, {{3, 0}, {7, 1}}, {{1, 0}, {5, 1}}};

// The level at or below magnitude a.
inline int32_t level_below(int32_t a, int quantizer) { return (a + quantizer * kFixedOne) >> 7; }

// Far out a token stands for many levels, so that the nearest level has one parity and the other has none.
inline int32_t nearest_level(int32_t a, int quantizer) { return (a + kFixedOne + quantizer * kFixedOne) >> 7; }

inline unsigned zigzag_level(int32_t q, int32_t x) {
  return 2 * static_cast<unsigned>(q) - (x < 0 && q != 0 ? 1u : 0u);
}

// The parity of the token of a value in the finest shape for 32 bits (integers.hpp, {7, 2}).
inline unsigned value_parity(uint32_t v) {
  if (v < 128) return token_parity(v);
  const unsigned top = 31 - static_cast<unsigned>(__builtin_clz(v));
  return token_parity(128 + ((top - 7) << 2) + ((v >> (top - 2)) & 3));
}

// What the levels of one unit cost, by quantizer and parity.
template <size_t L>
struct Branches {
  int32_t cost[2][2][L];
  int32_t choices[L];
};

// Three loops, of which only the look-up has nothing to vectorise.
template <size_t L, int kQuantizer>
inline void branches_of(const TrellisInput& in, const int32_t* a, const int32_t* table, Branches<L>& b) {
  constexpr int32_t offset = kQuantizer * static_cast<int32_t>(kRateStride), half = kQuantizer * kFixedOne;
  int32_t place[L], lower_rate[L], rate[L], above_rate[L];
  for (size_t l = 0; l < L; ++l) {
    const int32_t k = level_below(a[l], kQuantizer);
    place[l] = table[l] + offset + (k < kMostLevel ? k : kMostLevel);
  }
  for (size_t l = 0; l < L; ++l) {
    const int32_t* rates = in.rates + place[l];
    lower_rate[l] = rates[0];
    rate[l] = rates[1];
    above_rate[l] = rates[2];
  }
  const int32_t most = in.most, most_level = in.by_tokens ? kMostLevel : INT32_MAX;
  for (size_t l = 0; l < L; ++l) {
    const int32_t k = level_below(a[l], kQuantizer), beyond = k > most_level ? static_cast<int32_t>(kBeyond) : 0;
    const int32_t d = a[l] - k * kSpacing + (k > 0 ? half : 0);
    const int32_t e = kSpacing - (k > 0 ? 0 : half) - d, f = d + kSpacing - (k == 1 ? half : 0);
    const int32_t at = d * d + rate[l] + (d > most ? kTooFar : 0);
    const int32_t above = e * e + above_rate[l] + (e > most ? kTooFar : 0);
    const int32_t lower = f * f + lower_rate[l] + (f > most ? kTooFar : 0);
    const int32_t other = lower < above ? lower : above;
    b.cost[kQuantizer][0][l] = k & 1 ? other : at;
    b.cost[kQuantizer][1][l] = k & 1 ? at : other;
    b.choices[l] |= (lower < above ? 1 << kQuantizer : 0) | beyond;
  }
}

template <size_t L>
inline void branches_beyond(const TrellisInput& in, const int32_t* x, const int32_t* table, Branches<L>& b) {
  for (size_t l = 0; l < L; ++l) {
    if (!(b.choices[l] & static_cast<int32_t>(kBeyond))) continue;
    const int32_t a = x[l] < 0 ? -x[l] : x[l];
    for (int quantizer = 0; quantizer < 2; ++quantizer) {
      const int32_t q = nearest_level(a, quantizer), d = a - q * kSpacing + quantizer * kFixedOne;
      const int32_t* rates = in.rates + table[l] + quantizer * static_cast<int32_t>(kRateStride);
      const unsigned parity = value_parity(zigzag_level(q, x[l]));
      const int32_t rate = rates[1 + (q < static_cast<int32_t>(kRateLevels) ? q : static_cast<int32_t>(kRateLevels))];
      b.cost[quantizer][parity][l] = d * d + rate;
      b.cost[quantizer][1 - parity][l] = kNever;
    }
  }
}

// `costs`: 8 states of L trellises, in and out.
template <size_t L>
void trellis_forward_of(const TrellisInput& in, int32_t* costs, uint16_t* decisions) {
  int32_t cost[8][L], table[L] = {};
  __builtin_memcpy(cost, costs, sizeof cost);
  for (size_t g = 0; g < in.groups; ++g) {
    const int32_t* x = in.fixed + g * L;
    if (in.classes)
      for (size_t l = 0; l < L; ++l) table[l] = in.classes[g * L + l] * static_cast<int32_t>(2 * kRateStride);
    int32_t a[L];
    Branches<L> b;
    for (size_t l = 0; l < L; ++l) a[l] = x[l] < 0 ? -x[l] : x[l];
    for (size_t l = 0; l < L; ++l) b.choices[l] = 0;
    branches_of<L, 0>(in, a, table, b);
    branches_of<L, 1>(in, a, table, b);
    int32_t beyond = 0;
    for (size_t l = 0; l < L; ++l) beyond |= b.choices[l];
    if (beyond & static_cast<int32_t>(kBeyond)) branches_beyond<L>(in, x, table, b);
    int32_t next[8][L];
    for (size_t l = 0; l < L; ++l) {
      int32_t bits = b.choices[l] << 8;
#pragma GCC unroll 8
      for (int s = 0; s < 8; ++s) {
        const auto& p = kBefore[s];
        const int32_t first = cost[p[0][0]][l] + b.cost[p[0][0] & 1][p[0][1]][l];
        const int32_t second = cost[p[1][0]][l] + b.cost[p[1][0] & 1][p[1][1]][l];
        next[s][l] = second < first ? second : first;
        bits |= (second < first ? 1 : 0) << s;
      }
      decisions[g * L + l] = static_cast<uint16_t>(bits);
    }
    __builtin_memcpy(cost, next, sizeof cost);
    if (g % kNormalise + 1 < kNormalise) continue;
    for (size_t l = 0; l < L; ++l) {
      int32_t least = cost[0][l];
      for (int s = 1; s < 8; ++s) least = cost[s][l] < least ? cost[s][l] : least;
      for (int s = 0; s < 8; ++s) cost[s][l] = cost[s][l] - least < kNever ? cost[s][l] - least : kNever;
    }
  }
  __builtin_memcpy(costs, cost, sizeof cost);
}

// `states`: after the last group in, before the first out.
template <size_t L>
void trellis_back_of(const TrellisInput& in, const uint16_t* decisions, uint8_t* states, uint32_t* values,
                     uint8_t* contexts) {
  int32_t state[L];
  for (size_t l = 0; l < L; ++l) state[l] = states[l];
  for (size_t g = in.groups; g-- > 0;) {
    for (size_t l = 0; l < L; ++l) {
      const int32_t x = in.fixed[g * L + l], a = x < 0 ? -x : x, bits = decisions[g * L + l];
      // kBefore, written out: a look-up would not vectorise.
      const int32_t taken = bits >> state[l] & 1, quantizer = state[l] >> 2, odd = state[l] & 1;
      const int32_t parity = (taken ^ quantizer ^ state[l] >> 1) & 1;
      const int32_t k = level_below(a, quantizer), beyond = nearest_level(a, quantizer);
      const int32_t other = bits >> (8 + quantizer) & 1 ? k - 1 : k + 1;
      const int32_t near = (k & 1) == parity ? k : other;
      const int32_t q = bits >> 8 & static_cast<int32_t>(kBeyond) ? beyond : near;
      values[g * L + l] = zigzag_level(q, x);
      contexts[g * L + l] = static_cast<uint8_t>(quantizer * static_cast<int32_t>(in.class_count) +
                                                 (in.classes ? in.classes[g * L + l] : 0));
      state[l] = quantizer | (odd ^ quantizer) << 1 | taken << 2;
    }
  }
  for (size_t l = 0; l < L; ++l) states[l] = static_cast<uint8_t>(state[l]);
}
