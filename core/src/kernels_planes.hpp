// Units to symbols and bit planes and back (docs/format.md 3.4); a part of kernels_loops.hpp, and included only there.

// One plane of b bits: `count` values of `rest` shifted right by `shift`, packed as docs/format.md 3.4 says.
template <unsigned B, class T>
inline void pack_plane(const T* __restrict rest, size_t count, unsigned shift, uint8_t* __restrict out) {
  constexpr size_t per_byte = 8 / B, group = 32 * per_byte;
  constexpr T mask = (1u << B) - 1;
  for (size_t at = 0; at < count; at += group, out += 32) {
    if (count - at >= group) {
      for (size_t j = 0; j < 32; ++j) {
        unsigned v = 0;
        for (size_t q = 0; q < per_byte; ++q)
          v |= static_cast<unsigned>(rest[at + j + 32 * q] >> shift & mask) << (B * q);
        out[j] = static_cast<uint8_t>(v);
      }
    } else {
      const size_t left = count - at, stride = (left * B + 7) / 8;
      for (size_t j = 0; j < stride; ++j) out[j] = 0;
      for (size_t i = 0; i < left; ++i)
        out[i % stride] |= static_cast<uint8_t>((rest[at + i] >> shift & mask) << (B * (i / stride)));
    }
  }
}

template <unsigned B, class T>
inline void unpack_plane(const uint8_t* __restrict in, size_t count, unsigned shift, T* __restrict rest) {
  constexpr size_t per_byte = 8 / B, group = 32 * per_byte;
  constexpr unsigned mask = (1u << B) - 1;
  for (size_t at = 0; at < count; at += group, in += 32) {
    if (count - at >= group) {
      for (size_t q = 0; q < per_byte; ++q)
        for (size_t j = 0; j < 32; ++j)
          rest[at + 32 * q + j] |= static_cast<T>(static_cast<T>(in[j] >> (B * q) & mask) << shift);
    } else {
      const size_t left = count - at, stride = (left * B + 7) / 8;
      for (size_t i = 0; i < left; ++i)
        rest[at + i] |= static_cast<T>(static_cast<T>(in[i % stride] >> (B * (i / stride)) & mask) << shift);
    }
  }
}

inline size_t plane_bytes(size_t units, unsigned b) { return (units * b + 7) / 8; }

// The planes of one group of up to 256 units that begins at unit `first`.
template <class T>
inline void pack_rest(const T* rest, size_t first, size_t count, size_t total, unsigned bits, uint8_t* planes) {
  unsigned shift = 0;
  for (; shift + 8 <= bits; shift += 8, planes += total) {
    uint8_t* out = planes + first;
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(rest[i] >> shift);
  }
  const unsigned left = bits - shift;
  if (left & 4) {
    pack_plane<4>(rest, count, shift, planes + first / 2);
    planes += plane_bytes(total, 4);
    shift += 4;
  }
  if (left & 2) {
    pack_plane<2>(rest, count, shift, planes + first / 4);
    planes += plane_bytes(total, 2);
    shift += 2;
  }
  if (left & 1) pack_plane<1>(rest, count, shift, planes + first / 8);
}

template <class T>
inline void unpack_rest(const uint8_t* planes, size_t first, size_t count, size_t total, unsigned bits, T* rest) {
  unsigned shift = 0;
  for (size_t i = 0; i < count; ++i) rest[i] = 0;
  for (; shift + 8 <= bits; shift += 8, planes += total) {
    const uint8_t* in = planes + first;
    for (size_t i = 0; i < count; ++i) rest[i] |= static_cast<T>(static_cast<T>(in[i]) << shift);
  }
  const unsigned left = bits - shift;
  if (left & 4) {
    unpack_plane<4>(planes + first / 2, count, shift, rest);
    planes += plane_bytes(total, 4);
    shift += 4;
  }
  if (left & 2) {
    unpack_plane<2>(planes + first / 4, count, shift, rest);
    planes += plane_bytes(total, 2);
    shift += 2;
  }
  if (left & 1) unpack_plane<1>(planes + first / 8, count, shift, rest);
}

template <class T>
inline void split_group(const uint8_t* __restrict units, size_t count, unsigned top, unsigned zeros, uint32_t window,
                        uint8_t* __restrict symbols, T* __restrict rest) {
  constexpr unsigned width = 8 * sizeof(T);
  const unsigned low = width - 1 - top, bits = low - zeros + 1;  // bits of the mantissa that stay; r
  const T low_mask = static_cast<T>((T{1} << low) - 1), top_mask = static_cast<T>((T{1} << top) - 1);
  for (size_t i = 0; i < count; ++i) {
    const T u = load<T>(units + i * sizeof(T));
    const T t = static_cast<T>((u >> low & top_mask) - static_cast<T>(window));
    symbols[i] = static_cast<uint8_t>(static_cast<T>(t - 1) < T{255} ? t : T{0});
    rest[i] = static_cast<T>(static_cast<T>((u & low_mask) >> zeros) |
                             static_cast<T>(static_cast<T>(u >> (width - 1)) << (bits - 1)));
  }
}

// A whole group of 256 units with R bits of rest known to the compiler: everything stays in registers.
template <class T, unsigned R>
inline void pack_group(const T* __restrict rest, size_t first, size_t total, uint8_t* __restrict planes) {
  for (unsigned p = 0; p < R / 8; ++p, planes += total)
    for (size_t i = 0; i < kGroup; ++i) planes[first + i] = static_cast<uint8_t>(rest[i] >> (8 * p));
  if (R & 4) {
    pack_plane<4>(rest, kGroup, R & ~7u, planes + first / 2);
    planes += plane_bytes(total, 4);
  }
  if (R & 2) {
    pack_plane<2>(rest, kGroup, R & ~3u, planes + first / 4);
    planes += plane_bytes(total, 2);
  }
  if (R & 1) pack_plane<1>(rest, kGroup, R & ~1u, planes + first / 8);
}

// R = 0: known only at run time.
template <class T, unsigned R>
void split_groups(const uint8_t* units, size_t n, unsigned top, unsigned zeros, uint32_t window, uint8_t* symbols,
                  uint8_t* planes) {
  const unsigned bits = 8 * sizeof(T) - top - zeros;
  T rest[kGroup];
  size_t at = 0;
  for (; at + kGroup <= n; at += kGroup) {
    split_group<T>(units + at * sizeof(T), kGroup, top, zeros, window, symbols + at, rest);
    if (R) pack_group<T, R>(rest, at, n, planes);
    else pack_rest<T>(rest, at, kGroup, n, bits, planes);
  }
  if (at == n) return;
  split_group<T>(units + at * sizeof(T), n - at, top, zeros, window, symbols + at, rest);
  pack_rest<T>(rest, at, n - at, n, bits, planes);
}

template <class T>
void split_of(const uint8_t* units, size_t n, unsigned top, unsigned zeros, uint32_t window, uint8_t* symbols,
              uint8_t* planes) {
  const unsigned bits = 8 * sizeof(T) - top - zeros;
  if (sizeof(T) == 2 && bits == 6) return split_groups<T, 6>(units, n, top, zeros, window, symbols, planes);
  if (sizeof(T) == 2 && bits == 8) return split_groups<T, 8>(units, n, top, zeros, window, symbols, planes);
  if (sizeof(T) == 4 && bits == 22) return split_groups<T, 22>(units, n, top, zeros, window, symbols, planes);
  split_groups<T, 0>(units, n, top, zeros, window, symbols, planes);
}

void split(const uint8_t* units, unsigned width, size_t n, unsigned top, unsigned zeros, uint32_t window,
           uint8_t* symbols, uint8_t* planes) {
  if (width == 16) return split_of<uint16_t>(units, n, top, zeros, window, symbols, planes);
  if (width == 32) return split_of<uint32_t>(units, n, top, zeros, window, symbols, planes);
  split_of<uint64_t>(units, n, top, zeros, window, symbols, planes);
}

template <class T>
inline void join_group(const uint8_t* symbols, const T* rest, size_t count, unsigned top, unsigned zeros,
                       uint32_t window, uint8_t* units) {
  constexpr unsigned width = 8 * sizeof(T);
  const unsigned low = width - 1 - top, bits = low - zeros + 1;
  const T low_mask = static_cast<T>((T{1} << (bits - 1)) - 1);
  for (size_t i = 0; i < count; ++i) {
    const T t = static_cast<T>(symbols[i] + window);
    const T sign = static_cast<T>(static_cast<T>(rest[i] >> (bits - 1)) << (width - 1));
    store<T>(units + i * sizeof(T),
             static_cast<T>(sign | static_cast<T>(t << low) | static_cast<T>(static_cast<T>(rest[i] & low_mask) << zeros)));
  }
}

// A whole group of 256 units, 32 at a time, with R bits of rest known to the compiler.
template <class T, unsigned R>
inline void join_group_of(const uint8_t* __restrict symbols, const uint8_t* __restrict planes, size_t first, size_t total,
                          unsigned zeros, uint32_t window, uint8_t* __restrict units) {
  constexpr unsigned width = 8 * sizeof(T), byte_planes = R / 8;
  constexpr T low_mask = static_cast<T>((T{1} << (R - 1)) - 1);
  const unsigned low = R - 1 + zeros;
  const uint8_t* fours = planes + byte_planes * total + first / 2;
  const uint8_t* twos = fours - first / 2 + (R & 4 ? plane_bytes(total, 4) : 0) + first / 4;
  const uint8_t* ones = twos - first / 4 + (R & 2 ? plane_bytes(total, 2) : 0) + first / 8;
  for (unsigned b = 0; b < 8; ++b, symbols += 32, units += 32 * sizeof(T)) {
    const uint8_t* bytes = planes + first + 32 * b;
    const uint8_t* four = fours + 32 * (b / 2);
    const uint8_t* two = twos + 32 * (b / 4);
    for (size_t j = 0; j < 32; ++j) {
      T rest = 0;
      if (byte_planes > 0) rest = static_cast<T>(bytes[j]);
      if (byte_planes > 1) rest = static_cast<T>(rest | static_cast<T>(bytes[total + j]) << 8);
      if (R & 4) rest = static_cast<T>(rest | static_cast<T>(four[j] >> (4 * (b % 2)) & 15) << (R & ~7u));
      if (R & 2) rest = static_cast<T>(rest | static_cast<T>(two[j] >> (2 * (b % 4)) & 3) << (R & ~3u));
      if (R & 1) rest = static_cast<T>(rest | static_cast<T>(ones[j] >> b & 1) << (R & ~1u));
      const T top = static_cast<T>(static_cast<T>(symbols[j] + window) << low);
      const T sign = static_cast<T>(static_cast<T>(rest >> (R - 1)) << (width - 1));
      store<T>(units + j * sizeof(T), static_cast<T>(sign | top | static_cast<T>((rest & low_mask) << zeros)));
    }
  }
}

// R = 0: known only at run time.
template <class T, unsigned R>
void join_groups(const uint8_t* symbols, const uint8_t* planes, size_t first, size_t n, size_t total, unsigned top,
                 unsigned zeros, uint32_t window, uint8_t* units) {
  const unsigned bits = 8 * sizeof(T) - top - zeros;
  T rest[kGroup];
  size_t at = 0;
  for (; at + kGroup <= n; at += kGroup) {
    if (R) {
      join_group_of<T, R ? R : 1>(symbols + at, planes, first + at, total, zeros, window, units + at * sizeof(T));
    } else {
      unpack_rest<T>(planes, first + at, kGroup, total, bits, rest);
      join_group<T>(symbols + at, rest, kGroup, top, zeros, window, units + at * sizeof(T));
    }
  }
  if (at == n) return;
  unpack_rest<T>(planes, first + at, n - at, total, bits, rest);
  join_group<T>(symbols + at, rest, n - at, top, zeros, window, units + at * sizeof(T));
}

template <class T>
void join_of(const uint8_t* symbols, const uint8_t* planes, size_t first, size_t n, size_t total, unsigned top,
             unsigned zeros, uint32_t window, uint8_t* units) {
  const unsigned bits = 8 * sizeof(T) - top - zeros;
  // The shapes of whole BF16, F16 and F32 tensors.
  if (sizeof(T) == 2 && bits == 6) return join_groups<T, 6>(symbols, planes, first, n, total, top, zeros, window, units);
  if (sizeof(T) == 2 && bits == 8) return join_groups<T, 8>(symbols, planes, first, n, total, top, zeros, window, units);
  if (sizeof(T) == 4 && bits == 22) return join_groups<T, 22>(symbols, planes, first, n, total, top, zeros, window, units);
  join_groups<T, 0>(symbols, planes, first, n, total, top, zeros, window, units);
}

void join(const uint8_t* symbols, const uint8_t* planes, unsigned width, size_t first, size_t n, size_t total,
          unsigned top, unsigned zeros, uint32_t window, uint8_t* units) {
  if (width == 16) return join_of<uint16_t>(symbols, planes, first, n, total, top, zeros, window, units);
  if (width == 32) return join_of<uint32_t>(symbols, planes, first, n, total, top, zeros, window, units);
  join_of<uint64_t>(symbols, planes, first, n, total, top, zeros, window, units);
}
