#include "worker/model/format/safetensors.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"
#include "observability/base/status_macros.h"
#include "worker/model/format/strict_json.h"

namespace baleen::worker {
namespace {

struct DTypeFacts {
  DType dtype;
  std::string_view name;
  std::size_t bytes;
};

// In the order of the enumeration, so that it can be indexed by it.
constexpr std::array<DTypeFacts, 15> kDTypes = {{
    {DType::kBool, "BOOL", 1},
    {DType::kU8, "U8", 1},
    {DType::kI8, "I8", 1},
    {DType::kF8E4M3, "F8_E4M3", 1},
    {DType::kF8E5M2, "F8_E5M2", 1},
    {DType::kI16, "I16", 2},
    {DType::kU16, "U16", 2},
    {DType::kF16, "F16", 2},
    {DType::kBF16, "BF16", 2},
    {DType::kI32, "I32", 4},
    {DType::kU32, "U32", 4},
    {DType::kF32, "F32", 4},
    {DType::kF64, "F64", 8},
    {DType::kI64, "I64", 8},
    {DType::kU64, "U64", 8},
}};
static_assert(kDTypes.size() == static_cast<std::size_t>(DType::kU64) + 1);

constexpr std::size_t kLengthBytes = 8;  // of the header's length, in front of it
constexpr std::string_view kMetadata = "__metadata__";

// Reads the header as a stream of events: memory goes only to what is valid so far. Offsets stay
// relative to the data section here.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<TensorEntry> TakeEntries() { return std::move(entries_); }
  const std::string& error() const { return error_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return Unexpected(fmt::format("{}", value));  // called for negative numbers only
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(Quoted(text));
  }
  bool binary(binary_t&) override { return Unexpected("binary"); }

  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool start_object(std::size_t) override;
  bool end_object() override;
  bool start_array(std::size_t) override;
  bool end_array() override;
  bool key(string_t& value) override;
  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::detail::exception&) override {
    return Fail(
        fmt::format("header is not valid JSON at byte {}, near {}", position, Quoted(last_token)));
  }

 private:
  enum class Where { kOutside, kTop, kMetadataObject, kTensor, kShape, kOffsets };
  enum class Field { kNone, kDType, kShape, kOffsets };

  bool Fail(std::string why) {
    error_ = std::move(why);
    return false;
  }
  bool FailTensor(std::string_view why) {
    return Fail(fmt::format("tensor {}: {}", Quoted(entries_.back().name), why));
  }
  bool Unexpected(std::string_view what);
  bool TensorKey(std::string_view name);
  bool FieldKey(std::string_view name);

  Where where_ = Where::kOutside;
  Field field_ = Field::kNone;  // of the current tensor, its key just read
  bool metadata_next_ = false;  // the top-level key just read is __metadata__
  bool seen_dtype_ = false, seen_shape_ = false, seen_offsets_ = false;
  std::size_t offsets_ = 0;               // numbers of data_offsets read
  std::unordered_set<std::string> keys_;  // of the top level
  std::unordered_set<std::string> metadata_keys_;
  std::vector<TensorEntry> entries_;
  std::string error_;
};

bool HeaderReader::Unexpected(std::string_view what) {
  switch (where_) {
    case Where::kTensor:
      return FailTensor(fmt::format("unexpected {}", what));
    case Where::kShape:
      return FailTensor(fmt::format("shape: {} is not a dimension", what));
    case Where::kOffsets:
      return FailTensor(fmt::format("data_offsets: {} is not an offset", what));
    case Where::kMetadataObject:
      return Fail(fmt::format("__metadata__: {} is not a string", what));
    default:
      return Fail(fmt::format("header: unexpected {}", what));
  }
}

bool HeaderReader::start_object(std::size_t) {
  if (where_ == Where::kOutside) {
    where_ = Where::kTop;
    return true;
  }
  if (where_ != Where::kTop) return Unexpected("an object");
  where_ = metadata_next_ ? Where::kMetadataObject : Where::kTensor;
  field_ = Field::kNone;
  seen_dtype_ = seen_shape_ = seen_offsets_ = false;
  return true;
}

bool HeaderReader::end_object() {
  if (where_ == Where::kTensor && !(seen_dtype_ && seen_shape_ && seen_offsets_)) {
    return FailTensor("needs dtype, shape and data_offsets");
  }
  where_ = where_ == Where::kTop ? Where::kOutside : Where::kTop;
  return true;
}

bool HeaderReader::key(string_t& value) {
  if (where_ == Where::kTensor) return FieldKey(value);
  if (where_ == Where::kMetadataObject) {
    if (metadata_keys_.insert(value).second) return true;
    return Fail("__metadata__: duplicate key " + Quoted(value));
  }
  return TensorKey(value);
}

bool HeaderReader::TensorKey(std::string_view name) {
  if (name.size() > kTensorNameBytesMax) {
    return Fail(fmt::format("tensor name {} has {} bytes, the limit is {}", Quoted(name),
                            name.size(), kTensorNameBytesMax));
  }
  if (!keys_.emplace(name).second) return Fail("duplicate tensor name " + Quoted(name));
  metadata_next_ = name == kMetadata;
  if (metadata_next_) return true;
  if (entries_.size() == kTensorsMax) {
    return Fail(fmt::format("more than {} tensors, the limit", kTensorsMax));
  }
  entries_.emplace_back().name = name;
  return true;
}

bool HeaderReader::FieldKey(std::string_view name) {
  bool* seen = nullptr;
  if (name == "dtype") {
    field_ = Field::kDType;
    seen = &seen_dtype_;
  } else if (name == "shape") {
    field_ = Field::kShape;
    seen = &seen_shape_;
  } else if (name == "data_offsets") {
    field_ = Field::kOffsets;
    seen = &seen_offsets_;
  } else {
    return FailTensor(fmt::format("unknown field {}", Quoted(name)));
  }
  if (*seen) return FailTensor(fmt::format("duplicate field {}", Quoted(name)));
  *seen = true;
  return true;
}

bool HeaderReader::string(string_t& value) {
  if (where_ == Where::kMetadataObject) return true;
  if (where_ != Where::kTensor || field_ != Field::kDType) return Unexpected(Quoted(value));
  const auto facts = std::ranges::find(kDTypes, value, &DTypeFacts::name);
  if (facts == kDTypes.end()) return FailTensor("unknown dtype " + Quoted(value));
  entries_.back().dtype = facts->dtype;
  field_ = Field::kNone;
  return true;
}

bool HeaderReader::start_array(std::size_t) {
  if (where_ != Where::kTensor || (field_ != Field::kShape && field_ != Field::kOffsets)) {
    return Unexpected("an array");
  }
  where_ = field_ == Field::kShape ? Where::kShape : Where::kOffsets;
  offsets_ = 0;
  return true;
}

bool HeaderReader::end_array() {
  if (where_ == Where::kOffsets && offsets_ != 2) {
    return FailTensor(fmt::format("data_offsets has {} numbers, not 2", offsets_));
  }
  where_ = Where::kTensor;
  field_ = Field::kNone;
  return true;
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (where_ == Where::kShape) {
    if (entries_.back().shape.size() == kTensorRankMax) {
      return FailTensor(fmt::format("more than {} dimensions, the limit", kTensorRankMax));
    }
    entries_.back().shape.push_back(value);
    return true;
  }
  if (where_ != Where::kOffsets) return Unexpected(fmt::format("{}", value));
  if (offsets_ == 2) return FailTensor("data_offsets has more than 2 numbers");
  (offsets_++ == 0 ? entries_.back().begin : entries_.back().end) = value;
  return true;
}

// Elements times element size; nothing when it does not fit 64 bits.
std::optional<std::uint64_t> BytesOf(const TensorEntry& entry) {
  std::uint64_t bytes = DTypeBytes(entry.dtype);
  for (const std::uint64_t dimension : entry.shape) {
    if (__builtin_mul_overflow(bytes, dimension, &bytes)) return std::nullopt;
  }
  return bytes;
}

absl::Status CheckEntry(const TensorEntry& entry, std::uint64_t data_bytes) {
  const auto fail = [&](const std::string& why) {
    return absl::InvalidArgumentError(fmt::format("tensor {}: {}", Quoted(entry.name), why));
  };
  if (entry.begin > entry.end) {
    return fail(fmt::format("data_offsets [{}, {}] run backwards", entry.begin, entry.end));
  }
  if (entry.end > data_bytes) {
    return fail(fmt::format("data_offsets [{}, {}] reach beyond the file's {} data bytes",
                            entry.begin, entry.end, data_bytes));
  }
  const std::optional<std::uint64_t> bytes = BytesOf(entry);
  if (!bytes) {
    return fail(fmt::format("shape [{}] of {} does not fit 64 bits", fmt::join(entry.shape, ", "),
                            DTypeName(entry.dtype)));
  }
  if (*bytes != entry.end - entry.begin) {
    return fail(fmt::format("shape [{}] of {} takes {} bytes, data_offsets [{}, {}] give {}",
                            fmt::join(entry.shape, ", "), DTypeName(entry.dtype), *bytes,
                            entry.begin, entry.end, entry.end - entry.begin));
  }
  return absl::OkStatus();
}

// Sorted entries tile [0, data_bytes): no overlap, no hole.
absl::Status CheckTiling(const std::vector<TensorEntry>& entries, std::uint64_t data_bytes) {
  std::uint64_t reached = 0;
  for (const TensorEntry& entry : entries) {
    if (entry.begin != reached) {
      return absl::InvalidArgumentError(fmt::format(
          "tensor {} begins at data byte {}, the one before it ends at {}: {}", Quoted(entry.name),
          entry.begin, reached, entry.begin < reached ? "they overlap" : "there is a hole"));
    }
    reached = entry.end;
  }
  if (reached != data_bytes) {
    return absl::InvalidArgumentError(
        fmt::format("tensors end at data byte {}, the file has {}", reached, data_bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string_view> HeaderText(std::span<const std::byte> head,
                                            std::uint64_t file_bytes) {
  if (file_bytes < kLengthBytes || head.size() < kLengthBytes) {
    return absl::InvalidArgumentError(
        fmt::format("truncated: {} bytes, a header takes at least {}", file_bytes, kLengthBytes));
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<std::uint64_t>(head[i]) << (8 * i);
  }
  if (length > kHeaderBytesMax) {
    return absl::InvalidArgumentError(
        fmt::format("header of {} bytes, the limit is {}", length, kHeaderBytesMax));
  }
  if (length > file_bytes - kLengthBytes || length > head.size() - kLengthBytes) {
    return absl::InvalidArgumentError(
        fmt::format("truncated: header of {} bytes in a file of {} bytes", length, file_bytes));
  }
  std::string_view text(reinterpret_cast<const char*>(head.data()) + kLengthBytes, length);
  if (!text.starts_with('{')) {
    return absl::InvalidArgumentError("header does not begin with '{'");
  }
  // nlohmann-json takes a zero byte for the end of its input and would not look at the rest.
  if (const std::size_t zero = text.find('\0'); zero != text.npos) {
    return absl::InvalidArgumentError(
        fmt::format("header is not valid JSON at byte {}: a zero byte", zero));
  }
  return text;
}

}  // namespace

std::size_t DTypeBytes(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].bytes; }

std::string_view DTypeName(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].name; }

absl::StatusOr<std::vector<TensorEntry>> ParseSafetensorsHeader(std::span<const std::byte> head,
                                                                std::uint64_t file_bytes) {
  BALEEN_ASSIGN_OR_RETURN(const std::string_view text, HeaderText(head, file_bytes));
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) {
    return absl::InvalidArgumentError(reader.error());
  }
  std::vector<TensorEntry> entries = reader.TakeEntries();
  const std::uint64_t data_begin = kLengthBytes + text.size();
  const std::uint64_t data_bytes = file_bytes - data_begin;
  for (const TensorEntry& entry : entries) {
    BALEEN_RETURN_IF_ERROR(CheckEntry(entry, data_bytes));
  }
  std::ranges::sort(entries, [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  BALEEN_RETURN_IF_ERROR(CheckTiling(entries, data_bytes));
  for (TensorEntry& entry : entries) {
    entry.begin += data_begin;
    entry.end += data_begin;
  }
  return entries;
}

}  // namespace baleen::worker
