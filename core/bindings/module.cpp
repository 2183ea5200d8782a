// The codec for Python: checks, allocates, lets go of the GIL, raises. Only this folder sees nanobind.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#include "limosa/batch.hpp"
#include "limosa/crc32c.hpp"

namespace nb = nanobind;
using namespace limosa;

void bind_linalg(nb::module_& m);  // linalg.cpp
namespace {
using Buffer = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Lengths = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr size_t kFrameHeader = 8;

// A failure of one chunk, with its place; becomes CoreError(kind, tensor, chunk, byte, message) in Python.
struct ChunkError {
  const char* kind;
  size_t tensor, chunk, byte;
  std::string message;
};

PyObject* core_error = nullptr;

const char* kind_name(DecodeError::Kind kind) {
  return kind == DecodeError::truncated ? "truncated" : kind == DecodeError::checksum ? "checksum" : "corrupt";
}

struct Chunk {
  size_t tensor, index, first, n;  // first and n in units
};

std::vector<Chunk> split_chunks(const std::vector<size_t>& bytes, const std::vector<unsigned>& dtypes) {
  std::vector<Chunk> chunks;
  for (size_t t = 0; t < bytes.size(); ++t) {
    const size_t units = bytes[t] / kDtypes[dtypes[t]].unit_bytes();
    for (size_t at = 0, i = 0; at < units; at += kChunkUnits, ++i)
      chunks.push_back({t, i, at, std::min(kChunkUnits, units - at)});
  }
  return chunks;
}

std::vector<const uint8_t*> optional_buffers(const nb::list& list, const std::vector<size_t>& bytes, const char* what) {
  std::vector<const uint8_t*> pointers;
  if (nb::len(list) != bytes.size()) throw nb::value_error("lists differ in length");
  for (nb::handle h : list) {
    if (h.is_none()) {
      pointers.push_back(nullptr);
      continue;
    }
    const auto b = nb::cast<Buffer>(h, false);  // a converted copy would be gone after this line
    if (b.size() != bytes[pointers.size()])
      throw nb::value_error((std::string(what) + " and tensor differ in size").c_str());
    pointers.push_back(b.data());
  }
  return pointers;
}

void check_dtypes(const std::vector<unsigned>& dtypes, const std::vector<size_t>& bytes) {
  if (dtypes.size() != bytes.size()) throw nb::value_error("lists differ in length");
  for (size_t i = 0; i < dtypes.size(); ++i)
    if (dtypes[i] >= kDtypeCount || bytes[i] % kDtypes[dtypes[i]].unit_bytes())
      throw nb::value_error("unknown dtype, or a size that is not a whole number of units");
}

void check_digits(int digits) {
  if (digits > static_cast<int>(kMaxDigits)) throw nb::value_error("digits above 18");
}

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> to_numpy(std::unique_ptr<T[]> data, size_t size) {
  T* raw = data.release();
  nb::capsule owner(raw, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(raw, {size}, owner);
}

// What an encoder has written so far: a `bytes` object that grows, so that handing it out copies nothing.
class OutputBuffer {
 public:
  OutputBuffer() = default;
  ~OutputBuffer() { Py_XDECREF(bytes_); }
  OutputBuffer(const OutputBuffer&) = delete;
  OutputBuffer& operator=(const OutputBuffer&) = delete;

  size_t size() const { return size_; }

  // Room for `more` bytes behind what is there. Pages are not touched before something is written to them.
  uint8_t* reserve(size_t more) {
    if (capacity_ - size_ < more) grow(std::max(size_ + more, capacity_ + capacity_ / 2));
    return data() + size_;
  }

  void advance(size_t count) { size_ += count; }

  void append(const Buffer& part) {
    std::memcpy(reserve(part.size()), part.data(), part.size());
    advance(part.size());
  }

  // A copy of the bytes from `start` on.
  nb::bytes tail(size_t start) const {
    if (start > size_) throw nb::value_error("start beyond the end");
    return nb::bytes(bytes_ ? PyBytes_AS_STRING(bytes_) + start : "", size_ - start);
  }

  // All that was written; the buffer is empty afterwards.
  nb::object take() {
    if (!bytes_) return nb::bytes("", 0);
    PyObject* whole = std::exchange(bytes_, nullptr);
    const size_t size = std::exchange(size_, 0);
    capacity_ = 0;
    if (_PyBytes_Resize(&whole, static_cast<Py_ssize_t>(size)) < 0) throw nb::python_error();
    return nb::steal(whole);
  }

 private:
  uint8_t* data() const { return reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(bytes_)); }

  void grow(size_t capacity) {
    if (!bytes_) bytes_ = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(capacity));
    else _PyBytes_Resize(&bytes_, static_cast<Py_ssize_t>(capacity));
    if (!bytes_) {
      size_ = capacity_ = 0;
      throw nb::python_error();
    }
    capacity_ = capacity;
#if defined(__linux__)
    // Fresh pages cost more than what is written to them; huge ones come 512 at a time.
    constexpr size_t huge = size_t{2} << 20;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data()) + size_ + huge - 1) & ~uintptr_t{huge - 1};
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data()) + capacity_) & ~uintptr_t{huge - 1};
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
  }

  PyObject* bytes_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
};

// A chunk frame (docs/format.md 2.4) in place of what `frame` held.
void encode_frame(const ChunkInput& in, Bytes& frame, EncodeScratch& scratch) {
  frame.assign(kFrameHeader, 0);
  encode_chunk(in, frame, scratch);
  const size_t size = frame.size() - kFrameHeader;
  const uint32_t head[2] = {static_cast<uint32_t>(size), crc32c(frame.data() + kFrameHeader, size)};
  std::memcpy(frame.data(), head, kFrameHeader);
}

// No frame is longer: what does not get smaller is stored raw.
size_t frame_bound(const Chunk& c, const std::vector<unsigned>& dtypes) {
  const size_t bytes = c.n * kDtypes[dtypes[c.tensor]].unit_bytes();
  return kFrameHeader + bytes + bytes / 8 + 1024;
}

// step, dependent, lambda, adaptive, signs_only, row_scales, max_error, codebook
using LevelsTuple = std::tuple<double, bool, double, bool, bool, bool, double, std::vector<double>>;
using LevelsList = std::optional<std::vector<std::optional<LevelsTuple>>>;

// One request for each tensor; a step of 0: none.
std::vector<LevelsRequest> levels_requests(const LevelsList& list, size_t tensors) {
  std::vector<LevelsRequest> requests(tensors);
  if (!list) return requests;
  if (list->size() != tensors) throw nb::value_error("lists differ in length");
  for (size_t t = 0; t < tensors; ++t) {
    if (!(*list)[t]) continue;
    const auto& [step, dependent, lambda, adaptive, signs, scales, most, book] = *(*list)[t];
    if (!std::isnormal(static_cast<float>(step)) || step < 0) throw nb::value_error("step: positive, normal in binary32");
    if (!(lambda >= 0) || !(most >= 0)) throw nb::value_error("lambda and max_error: not negative");
    if (book.size() > 256 || !std::all_of(book.begin(), book.end(), [](double v) { return std::isfinite(v); }))
      throw nb::value_error("codebook: at most 256 finite values");
    float error = static_cast<float>(most);
    if (double{error} > most) error = std::nextafter(error, 0.0f);  // a promise
    requests[t] = {static_cast<float>(step), dependent, static_cast<float>(lambda), adaptive, signs, scales, error, book.empty() ? nullptr : &book};
  }
  return requests;
}

// Appends the frames to `out` and returns the lengths of their payloads.
nb::object encode_tensors(const nb::list& datas, const nb::list& bases, const std::vector<unsigned>& dtypes, int digits,
                          unsigned threads, const LevelsList& levels, const std::optional<std::vector<size_t>>& columns,
                          OutputBuffer& out) {
  std::vector<const uint8_t*> data;
  std::vector<size_t> bytes;
  for (nb::handle h : datas) {
    const auto b = nb::cast<Buffer>(h, false);  // a conversion would be a temporary
    data.push_back(b.data());
    bytes.push_back(b.size());
  }
  check_dtypes(dtypes, bytes);
  check_digits(digits);
  const auto base = optional_buffers(bases, bytes, "base");
  const auto requests = levels_requests(levels, bytes.size());
  if (columns && columns->size() != bytes.size()) throw nb::value_error("lists differ in length");
  const auto chunks = split_chunks(bytes, dtypes);
  std::unique_ptr<uint32_t[]> lengths(new uint32_t[std::max<size_t>(chunks.size(), 1)]);
  size_t room = 0, used = 0;
  for (const Chunk& c : chunks) room += frame_bound(c, dtypes);
  uint8_t* const to = out.reserve(room);
  {
    nb::gil_scoped_release release;
    struct Worker {
      EncodeScratch scratch;
      Bytes frame;
    };
    std::vector<Worker> workers(std::max(1u, threads));
    FrameQueue queue(2 * workers.size(), [&](size_t i, size_t size) {
      lengths[i] = static_cast<uint32_t>(size - kFrameHeader);
      return to + std::exchange(used, used + size);
    });
    run_parallel(chunks.size(), threads, [&](unsigned number, size_t i) {
      Worker& worker = workers[number];
      const Chunk& c = chunks[i];
      try {
        const size_t offset = c.first * kDtypes[dtypes[c.tensor]].unit_bytes();
        const LevelsRequest& request = requests[c.tensor];
        const size_t row = columns ? (*columns)[c.tensor] : 0;
        encode_frame({data[c.tensor] + offset, base[c.tensor] ? base[c.tensor] + offset : nullptr, c.n, dtypes[c.tensor],
                      digits, request.step > 0 ? &request : nullptr, row, row ? c.first % row : 0},
                     worker.frame, worker.scratch);
        if (worker.frame.size() > frame_bound(c, dtypes)) throw std::length_error("a frame is longer than its bound");
        queue.put(i, worker.frame);
      } catch (...) {
        queue.open();
        throw;
      }
    });
  }
  out.advance(used);
  return nb::cast(to_numpy(std::move(lengths), chunks.size()));
}

// Where each frame's payload lies; checks that the frames fill the buffer exactly and that the heads agree.
std::vector<size_t> locate(const Buffer& frames, const Lengths& lengths, const std::vector<Chunk>& chunks) {
  std::vector<size_t> offsets;
  size_t at = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (frames.size() - at < kFrameHeader || frames.size() - at - kFrameHeader < lengths.data()[i])
      throw ChunkError{"truncated", chunks[i].tensor, chunks[i].index, at, "chunk frame is incomplete"};
    uint32_t length;
    std::memcpy(&length, frames.data() + at, 4);
    if (length != lengths.data()[i])
      throw ChunkError{"corrupt", chunks[i].tensor, chunks[i].index, at, "length of a chunk differs from the index"};
    offsets.push_back(at + kFrameHeader);
    at += kFrameHeader + length;
  }
  if (at != frames.size()) throw nb::value_error("frames do not fill their buffer");
  return offsets;
}

void check_payload(const uint8_t* payload, size_t size, const Chunk& c, size_t at) {
  uint32_t stored;
  std::memcpy(&stored, payload - 4, 4);
  if (crc32c(payload, size) != stored)
    throw ChunkError{"checksum", c.tensor, c.index, at, "checksum of a chunk does not match its bytes"};
}

struct DecodeBatch {
  std::vector<uint8_t*> outs;
  std::vector<const uint8_t*> bases, copies;
  std::vector<Chunk> chunks;
  std::vector<size_t> offsets;
  const uint8_t* frames;
  const uint32_t* lengths;
  const std::vector<unsigned>& dtypes;
  int digits;

  void decode(size_t i, DecodeScratch& scratch, std::vector<BlockInfo>* blocks) const {
    const Chunk& c = chunks[i];
    const size_t offset = c.first * kDtypes[dtypes[c.tensor]].unit_bytes();
    const auto move = [&](const uint8_t* p) { return p ? p + offset : nullptr; };
    const uint8_t* payload = frames + offsets[i];
    check_payload(payload, lengths[i], c, offsets[i]);
    const ChunkOutput out{outs[c.tensor] + offset, move(bases[c.tensor]), move(copies[c.tensor]), c.n, dtypes[c.tensor],
                          digits};
    try {
      if (blocks) inspect_chunk(payload, lengths[i], out, scratch, *blocks);
      else decode_chunk(payload, lengths[i], out, scratch);
    } catch (const DecodeError& e) {
      throw ChunkError{kind_name(e.kind), c.tensor, c.index, offsets[i] + e.byte, e.message};
    }
  }
};

DecodeBatch prepare(const Buffer& frames, const Lengths& lengths, const nb::list& outs, const nb::list& bases,
                    const std::vector<unsigned>& dtypes, const nb::list& copies, int digits) {
  DecodeBatch b{{}, {}, {}, {}, {}, frames.data(), lengths.data(), dtypes, digits};
  std::vector<size_t> bytes;
  for (nb::handle h : outs) {
    const auto o = nb::cast<Output>(h, false);  // not into a converted copy
    b.outs.push_back(o.data());
    bytes.push_back(o.size());
  }
  check_dtypes(dtypes, bytes);
  check_digits(digits);
  b.bases = optional_buffers(bases, bytes, "base");
  b.copies = optional_buffers(copies, bytes, "copy");
  b.chunks = split_chunks(bytes, dtypes);
  if (lengths.size() != b.chunks.size()) throw nb::value_error("payload_lengths: not one for each chunk");
  b.offsets = locate(frames, lengths, b.chunks);
  return b;
}

void decode_tensors(const Buffer& frames, const Lengths& lengths, const nb::list& outs, const nb::list& bases,
                    const std::vector<unsigned>& dtypes, const nb::list& copies, int digits, unsigned threads) {
  const DecodeBatch batch = prepare(frames, lengths, outs, bases, dtypes, copies, digits);
  nb::gil_scoped_release release;
  std::vector<DecodeScratch> scratch(std::max(1u, threads));
  run_parallel(batch.chunks.size(), threads,
               [&](unsigned worker, size_t i) { batch.decode(i, scratch[worker], nullptr); });
}

using BlockTuple = std::tuple<int, size_t, size_t>;

std::vector<std::vector<BlockTuple>> inspect_tensors(const Buffer& frames, const Lengths& lengths, const nb::list& outs,
                                                     const nb::list& bases, const std::vector<unsigned>& dtypes,
                                                     const nb::list& copies, int digits) {
  const DecodeBatch batch = prepare(frames, lengths, outs, bases, dtypes, copies, digits);
  std::vector<std::vector<BlockTuple>> result(batch.chunks.size());
  nb::gil_scoped_release release;
  DecodeScratch scratch;
  for (size_t i = 0; i < batch.chunks.size(); ++i) {
    std::vector<BlockInfo> blocks;
    batch.decode(i, scratch, &blocks);
    for (const BlockInfo& k : blocks) result[i].emplace_back(static_cast<int>(k.mode), k.units, k.bytes);
  }
  return result;
}

std::tuple<double, double, double> distortion_of(const Buffer& a, const Buffer& b, unsigned dtype) {
  check_dtypes({dtype}, {a.size()});
  if (a.size() != b.size() || !kDtypes[dtype].is_float()) throw nb::value_error("sizes differ, or the dtype is not float");
  const nb::gil_scoped_release release;
  const Distortion d = distortion(a.data(), b.data(), dtype, a.size() / kDtypes[dtype].unit_bytes());
  return {d.signal, d.noise, d.largest};
}

std::vector<std::string> simd_paths() {
  std::vector<std::string> names;
  for (const char* const* n = kernel_names(); *n; ++n) names.emplace_back(*n);
  return names;
}

void set_simd(const std::string& name) {
  if (!select_kernels(name.c_str())) throw nb::value_error("no such instruction set in this build or processor");
}

}  // namespace

NB_MODULE(_core, m) {
  using namespace nb::literals;
  core_error = PyErr_NewException("limosa._core.CoreError", PyExc_ValueError, nullptr);
  m.attr("CoreError") = nb::handle(core_error);
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const ChunkError& e) {
      const nb::tuple args = nb::make_tuple(e.kind, e.tensor, e.chunk, e.byte, e.message);
      PyErr_SetObject(core_error, args.ptr());
    }
  });
  nb::class_<OutputBuffer>(m, "OutputBuffer")
      .def(nb::init<>())
      .def("__len__", &OutputBuffer::size)
      .def("append", &OutputBuffer::append, "part"_a)
      .def("tail", &OutputBuffer::tail, "start"_a)
      .def("take", &OutputBuffer::take);
  m.def("encode_tensors", &encode_tensors, "datas"_a, "bases"_a, "dtypes"_a, nb::kw_only(), "digits"_a = -1,
        "threads"_a = 1, "levels"_a = nb::none(), "columns"_a = nb::none(), "out"_a);
  m.def("distortion", &distortion_of, "a"_a, "b"_a, "dtype"_a);
  m.def("decode_tensors", &decode_tensors, "frames"_a, "payload_lengths"_a, "outs"_a, "bases"_a, "dtypes"_a, "copies"_a,
        nb::kw_only(), "digits"_a = -1, "threads"_a = 1);
  m.def("inspect_tensors", &inspect_tensors, "frames"_a, "payload_lengths"_a, "outs"_a, "bases"_a, "dtypes"_a, "copies"_a,
        nb::kw_only(), "digits"_a = -1);
  m.def("crc32c", [](const Buffer& b, uint32_t v) { return crc32c(b.data(), b.size(), v); }, "data"_a, "value"_a = 0);
  m.def("simd_paths", &simd_paths);
  m.def("simd", [] { return std::string(kernels().name); });
  m.def("set_simd", &set_simd, "name"_a);
  bind_linalg(m);
}
