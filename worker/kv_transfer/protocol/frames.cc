#include "worker/kv_transfer/protocol/frames.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>

#include "observability/base/check.h"
#include "worker/kv_transfer/protocol/checksum.h"

namespace baleen::worker {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are copied as little-endian");

constexpr std::uint32_t kMagic = 0x764b'6c42;  // "BlKv"
constexpr std::size_t kHeadBytes = 16;
constexpr std::size_t kChecksumBytes = 8;

// On the wire: position in the Frame variant, plus one.
enum class Kind : std::uint8_t {
  kOffer = 1,
  kReady,
  kBlock,
  kClosing,
  kHandedOver,
  kFailed,
  kWithdrawn,
};
static_assert(std::variant_size_v<Frame> == static_cast<std::size_t>(Kind::kWithdrawn));

std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class Writer {
 public:
  template <typename T>
  void Number(T value) {
    static_assert(std::is_integral_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void String(std::string_view text) {
    Number(static_cast<std::uint32_t>(text.size()));
    bytes_.append(text);
  }
  void Status(const absl::Status& status) {
    BALEEN_CHECK(!status.ok(), "a frame that tells of a failure carries its reason");
    Number(static_cast<std::uint32_t>(status.code()));
    const std::string_view message(status.message().data(), status.message().size());
    String(message.substr(0, kStatusMessageBytesMax));
  }
  std::string Finish() && {
    Number(Checksum(BytesOf(bytes_)));
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
};

// Reads past the end give zeros and make ok() false.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  T Number() {
    static_assert(std::is_integral_v<T>);
    T value = 0;
    if (bytes_.size() < sizeof(value)) {
      ok_ = false;
      return value;
    }
    std::memcpy(&value, bytes_.data(), sizeof(value));
    bytes_ = bytes_.subspan(sizeof(value));
    return value;
  }
  std::string String(std::size_t bytes_max) {
    const std::size_t size = Number<std::uint32_t>();
    if (size > bytes_max || size > bytes_.size()) {
      ok_ = false;
      return {};
    }
    std::string text(reinterpret_cast<const char*>(bytes_.data()), size);
    bytes_ = bytes_.subspan(size);
    return text;
  }
  absl::Status Status() {
    const auto code = Number<std::uint32_t>();
    std::string message = String(kStatusMessageBytesMax);
    const bool known = code >= static_cast<std::uint32_t>(absl::StatusCode::kCancelled) &&
                       code <= static_cast<std::uint32_t>(absl::StatusCode::kUnauthenticated);
    ok_ = ok_ && known;
    return ok_ ? absl::Status(static_cast<absl::StatusCode>(code), message) : absl::OkStatus();
  }
  void Zero(std::uint32_t value) { ok_ = ok_ && value == 0; }
  // Every byte was read, and none too many.
  bool Complete() const { return ok_ && bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

void WriteBody(const OfferFrame& frame, Writer& writer) {
  BALEEN_CHECK(frame.reply_address.size() <= contract::kDataPlaneAddressBytesMax,
               "an address that is longer than the contract allows is refused at start");
  writer.Number(frame.block_bytes);
  writer.String(frame.reply_address);
}
void WriteBody(const ReadyFrame& frame, Writer& writer) { writer.Number(frame.blocks); }
void WriteBody(const BlockHeader& frame, Writer& writer) {
  writer.Number(frame.number);
  writer.Number(std::uint32_t{0});
  writer.Number(frame.length);
  writer.Number(frame.checksum);
}
void WriteBody(const ClosingFrame& frame, Writer& writer) {
  BALEEN_CHECK(frame.manifest.size() <= kManifestBytesMax, "Send checks the manifest's size");
  writer.Number(frame.blocks_total);
  writer.Number(frame.checksum);
  writer.String(frame.manifest);
}
void WriteBody(const HandedOverFrame&, Writer&) {}
void WriteBody(const FailedFrame& frame, Writer& writer) { writer.Status(frame.status); }
void WriteBody(const WithdrawnFrame& frame, Writer& writer) { writer.Status(frame.status); }

Frame ReadBody(Kind kind, std::uint8_t version, contract::TransferId id, Reader& reader) {
  switch (kind) {
    case Kind::kOffer: {
      OfferFrame frame{.id = id, .version = version};
      frame.block_bytes = reader.Number<std::uint64_t>();
      frame.reply_address = reader.String(contract::kDataPlaneAddressBytesMax);
      return frame;
    }
    case Kind::kReady:
      return ReadyFrame{.id = id, .blocks = reader.Number<std::uint32_t>()};
    case Kind::kBlock: {
      BlockHeader frame{.id = id};
      frame.number = reader.Number<std::uint32_t>();
      reader.Zero(reader.Number<std::uint32_t>());
      frame.length = reader.Number<std::uint64_t>();
      frame.checksum = reader.Number<std::uint64_t>();
      return frame;
    }
    case Kind::kClosing: {
      ClosingFrame frame{.id = id};
      frame.blocks_total = reader.Number<std::uint32_t>();
      frame.checksum = reader.Number<std::uint64_t>();
      frame.manifest = reader.String(kManifestBytesMax);
      return frame;
    }
    case Kind::kHandedOver:
      return HandedOverFrame{.id = id};
    case Kind::kFailed:
      return FailedFrame{.id = id, .status = reader.Status()};
    case Kind::kWithdrawn:
      return WithdrawnFrame{.id = id, .status = reader.Status()};
  }
  BALEEN_CHECK(false, "DecodeFrame checks the kind");
}

absl::Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("KV transfer frame: {}", what));
}

}  // namespace

std::string EncodeFrame(const Frame& frame) {
  Writer writer;
  std::visit(
      [&](const auto& body) {
        std::uint8_t version = kTransferProtocolVersion;
        if constexpr (std::is_same_v<std::decay_t<decltype(body)>, OfferFrame>) {
          version = body.version;
        }
        writer.Number(kMagic);
        writer.Number(static_cast<std::uint8_t>(frame.index() + 1));
        writer.Number(version);
        writer.Number(std::uint16_t{0});
        writer.Number(body.id.value);
        WriteBody(body, writer);
      },
      frame);
  return std::move(writer).Finish();
}

absl::StatusOr<Frame> DecodeFrame(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeadBytes + kChecksumBytes || bytes.size() > kFrameBytesMax) {
    return Malformed(fmt::format("{} bytes long, limits {} and {}", bytes.size(),
                                 kHeadBytes + kChecksumBytes, kFrameBytesMax));
  }
  const auto content = bytes.first(bytes.size() - kChecksumBytes);
  if (Reader(bytes.subspan(content.size())).Number<std::uint64_t>() != Checksum(content)) {
    return Malformed("checksum mismatch");
  }
  Reader reader(content);
  if (reader.Number<std::uint32_t>() != kMagic) return Malformed("not one of ours");
  const auto kind = reader.Number<std::uint8_t>();
  const auto version = reader.Number<std::uint8_t>();
  reader.Zero(reader.Number<std::uint16_t>());
  const contract::TransferId id{reader.Number<std::uint64_t>()};
  if (kind < static_cast<std::uint8_t>(Kind::kOffer) ||
      kind > static_cast<std::uint8_t>(Kind::kWithdrawn)) {
    return Malformed(fmt::format("unknown kind {}", kind));
  }
  if (version != kTransferProtocolVersion && static_cast<Kind>(kind) != Kind::kOffer) {
    return Malformed(
        fmt::format("version {}, this rank speaks {}", version, kTransferProtocolVersion));
  }
  if (id.value == 0) return Malformed("transfer id 0");
  Frame frame = ReadBody(static_cast<Kind>(kind), version, id, reader);
  if (!reader.Complete()) return Malformed(fmt::format("body of kind {} does not parse", kind));
  return frame;
}

}  // namespace baleen::worker
