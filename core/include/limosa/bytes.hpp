// Bounded reading and appending of the scalar fields of the bitstream (docs/format.md 1).
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace limosa {

// What a decoder throws; the binding turns the kind into a Python exception of the same name.
struct DecodeError {
  enum Kind { truncated, corrupt, checksum } kind;
  size_t byte;  // offset in the payload at which it was noticed
  std::string message;
};

// Reads forward and never past the end.
class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : begin_(data), at_(data), end_(data + size) {}

  size_t offset() const { return static_cast<size_t>(at_ - begin_); }
  size_t left() const { return static_cast<size_t>(end_ - at_); }

  [[noreturn]] void corrupt(const std::string& what) const {
    throw DecodeError{DecodeError::corrupt, offset(), what};
  }

  const uint8_t* take(size_t size) {
    if (size > left()) {
      throw DecodeError{DecodeError::truncated, offset(),
                        "needs " + std::to_string(size) + " bytes, found " + std::to_string(left())};
    }
    const uint8_t* p = at_;
    at_ += size;
    return p;
  }

  template <class T>
  T number() {  // little-endian hosts only, checked in the build
    T v;
    std::memcpy(&v, take(sizeof v), sizeof v);
    return v;
  }

  uint64_t varint() {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      const uint8_t b = *take(1);
      if (shift == 63 && b > 1) break;
      v |= static_cast<uint64_t>(b & 127) << shift;
      if (b < 128) return v;
    }
    corrupt("varint above 64 bits");
  }

 private:
  const uint8_t *begin_, *at_, *end_;
};

using Bytes = std::vector<uint8_t>;

template <class T>
void append(Bytes& out, T v) {
  const size_t at = out.size();
  out.resize(at + sizeof v);
  std::memcpy(out.data() + at, &v, sizeof v);
}

inline void append_bytes(Bytes& out, const void* data, size_t size) {
  const auto* p = static_cast<const uint8_t*>(data);
  out.insert(out.end(), p, p + size);
}

inline void append_varint(Bytes& out, uint64_t v) {
  for (; v >= 128; v >>= 7) out.push_back(static_cast<uint8_t>(v | 128));
  out.push_back(static_cast<uint8_t>(v));
}

// The first place from `from` on, below n, that holds a zero byte; n if there is none.
inline size_t find_zero(const uint8_t* bytes, size_t from, size_t n) {
  if (from >= n) return n;
  const void* p = std::memchr(bytes + from, 0, n - from);
  return p ? static_cast<size_t>(static_cast<const uint8_t*>(p) - bytes) : n;
}

inline unsigned bit_length(uint64_t v) {
  return v == 0 ? 0u : 64u - static_cast<unsigned>(__builtin_clzll(v));
}

}  // namespace limosa
