// Protobuf's encoding, as much as a load client needs: varints, fixed width, length-delimited.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace bench::wire {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packed columns are copied as they lie in memory");

class Writer {
 public:
  Writer& varint(int field, std::uint64_t value) {
    if (value != 0) raw_varint(static_cast<std::uint64_t>(field) << 3), raw_varint(value);
    return *this;
  }
  // Present even when 0: for optional fields.
  Writer& optional_varint(int field, std::uint64_t value) {
    raw_varint(static_cast<std::uint64_t>(field) << 3), raw_varint(value);
    return *this;
  }
  Writer& bytes(int field, std::string_view value) {
    raw_varint(static_cast<std::uint64_t>(field) << 3 | 2), raw_varint(value.size());
    text_.append(value);
    return *this;
  }
  template <class T>
  Writer& packed(int field, std::span<const T> values) {
    static_assert(sizeof(T) == 8);
    return bytes(field, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }
  std::string take() { return std::move(text_); }
  std::string_view view() const { return text_; }
  void reserve(std::size_t size) { text_.reserve(size); }

 private:
  void raw_varint(std::uint64_t value) {
    for (; value > 0x7F; value >>= 7) text_.push_back(static_cast<char>(value | 0x80));
    text_.push_back(static_cast<char>(value));
  }
  std::string text_;
};

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  // Goes to the next field; false at the end. What the caller does not take is skipped.
  bool next() {
    if (at_ == text_.size()) return false;
    const auto key = raw_varint();
    field = static_cast<int>(key >> 3);
    switch (key & 7) {
      case 0: number = raw_varint(); break;
      case 1: number = fixed(8); break;
      case 2: {
        const auto size = raw_varint();
        if (size > text_.size() - at_) throw std::runtime_error("protobuf: field beyond its message");
        bytes = text_.substr(at_, size);
        at_ += size;
        break;
      }
      case 5: number = fixed(4); break;
      default: throw std::runtime_error("protobuf: unknown wire type");
    }
    return true;
  }

  int field = 0;
  std::uint64_t number = 0;
  std::string_view bytes;

 private:
  std::uint64_t raw_varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == text_.size()) throw std::runtime_error("protobuf: varint is cut");
      const auto byte = static_cast<std::uint8_t>(text_[at_++]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    throw std::runtime_error("protobuf: varint is too long");
  }
  std::uint64_t fixed(std::size_t size) {
    if (size > text_.size() - at_) throw std::runtime_error("protobuf: number is cut");
    std::uint64_t value = 0;
    std::memcpy(&value, text_.data() + at_, size);
    at_ += size;
    return value;
  }
  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace bench::wire
