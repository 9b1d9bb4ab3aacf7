// The wire format: what is written is read back, and nothing else is.
#include "worker/kv_transfer/protocol/frames.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "worker/kv_transfer/protocol/checksum.h"

namespace baleen::worker {
namespace {

using contract::TransferId;

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// `frame` with a checksum that fits again after it was changed.
std::string Sealed(std::string frame) {
  frame.resize(frame.size() - 8);
  const std::uint64_t checksum = Checksum(BytesOf(frame));
  frame.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  return frame;
}

std::vector<Frame> Samples() {
  const TransferId id{0x1122334455667788};
  return {
      OfferFrame{.id = id, .block_bytes = 4'497'408, .reply_address = "an address"},
      OfferFrame{.id = id,
                 .version = 200,
                 .reply_address = std::string(contract::kDataPlaneAddressBytesMax, 'a')},
      ReadyFrame{.id = id, .blocks = 70},
      BlockHeader{.id = id, .number = 69, .length = 4'497'408, .checksum = 42},
      ClosingFrame{.id = id, .blocks_total = 70, .checksum = 43, .manifest = "manifest"},
      ClosingFrame{.id = id, .manifest = std::string(kManifestBytesMax, '\0')},
      HandedOverFrame{.id = id},
      FailedFrame{.id = id, .status = absl::DataLossError("damaged")},
      WithdrawnFrame{.id = id, .status = absl::CancelledError("")},
  };
}

struct Text {
  std::string operator()(const OfferFrame& f) const {
    return "offer " + std::to_string(f.version) + " " + std::to_string(f.block_bytes) + " " +
           f.reply_address;
  }
  std::string operator()(const ReadyFrame& f) const { return "ready " + std::to_string(f.blocks); }
  std::string operator()(const BlockHeader& f) const {
    return "block " + std::to_string(f.number) + " " + std::to_string(f.length) + " " +
           std::to_string(f.checksum);
  }
  std::string operator()(const ClosingFrame& f) const {
    return "closing " + std::to_string(f.blocks_total) + " " + std::to_string(f.checksum) + " " +
           f.manifest;
  }
  std::string operator()(const HandedOverFrame&) const { return "handed over"; }
  std::string operator()(const FailedFrame& f) const { return "failed " + f.status.ToString(); }
  std::string operator()(const WithdrawnFrame& f) const {
    return "withdrawn " + f.status.ToString();
  }
};

TransferId IdOf(const Frame& frame) {
  return std::visit([](const auto& body) { return body.id; }, frame);
}

TEST(Frames, AreReadBackAsWritten) {
  for (const Frame& frame : Samples()) {
    const std::string bytes = EncodeFrame(frame);
    EXPECT_LE(bytes.size(), kFrameBytesMax);
    const auto read = DecodeFrame(BytesOf(bytes));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(IdOf(*read), IdOf(frame));
    EXPECT_EQ(std::visit(Text(), *read), std::visit(Text(), frame));
  }
}

TEST(Frames, BlockHeadersHaveTheStatedSize) {
  EXPECT_EQ(EncodeFrame(BlockHeader{.id = {1}}).size(), kBlockHeaderBytes);
}

// The layout is a contract between ranks of different builds: a change must raise the version.
TEST(Frames, LayoutIsFixed) {
  const std::string bytes =
      EncodeFrame(ReadyFrame{.id = {0x0807060504030201}, .blocks = 0x0c0b0a09});
  const std::string expected(
      "BlKv"
      "\x02\x01\x00\x00"
      "\x01\x02\x03\x04\x05\x06\x07\x08"
      "\x09\x0a\x0b\x0c",
      20);
  EXPECT_EQ(bytes.substr(0, 20), expected);
  EXPECT_EQ(bytes.size(), 28u);
}

TEST(Frames, EveryFlippedBitIsNoticed) {
  for (const Frame& frame : Samples()) {
    std::string bytes = EncodeFrame(frame);
    const std::size_t step = bytes.size() > 200 ? 97 : 1;
    for (std::size_t i = 0; i < bytes.size(); i += step) {
      bytes[i] ^= 0x10;
      EXPECT_FALSE(DecodeFrame(BytesOf(bytes)).ok()) << "byte " << i;
      bytes[i] ^= 0x10;
    }
  }
}

TEST(Frames, TruncatedAndPaddedFramesAreRefusedEvenIfSealed) {
  for (const Frame& frame : Samples()) {
    const std::string bytes = EncodeFrame(frame);
    const std::size_t step = bytes.size() > 200 ? 97 : 1;
    for (std::size_t size = 8; size < bytes.size(); size += step) {
      EXPECT_FALSE(DecodeFrame(BytesOf(Sealed(bytes.substr(0, size)))).ok()) << size;
    }
    EXPECT_FALSE(DecodeFrame(BytesOf(Sealed(bytes + "x"))).ok());
  }
  EXPECT_FALSE(DecodeFrame({}).ok());
  EXPECT_FALSE(DecodeFrame(BytesOf(std::string(kFrameBytesMax + 1, 'x'))).ok());
}

struct BadFrame {
  std::string what;
  Frame frame;
  std::size_t at;
  std::string bytes;  // put there, then sealed
};

TEST(Frames, SealedNonsenseIsRefused) {
  const TransferId id{7};
  const std::vector<BadFrame> cases = {
      {"magic", HandedOverFrame{id}, 0, "X"},
      {"kind 0", HandedOverFrame{id}, 4, std::string(1, '\0')},
      {"kind 8", HandedOverFrame{id}, 4, "\x08"},
      {"version", HandedOverFrame{id}, 5, "\x02"},
      {"reserved", HandedOverFrame{id}, 6, "\x01"},
      {"id 0", HandedOverFrame{id}, 8, std::string(8, '\0')},
      {"string longer than the frame", OfferFrame{.id = id, .reply_address = "abc"}, 24, "\x04"},
      {"string shorter than the frame", OfferFrame{.id = id, .reply_address = "abc"}, 24, "\x02"},
      {"huge string", OfferFrame{.id = id, .reply_address = "abc"}, 24, "\xff\xff\xff\xff"},
      {"padding of a block header", BlockHeader{.id = id}, 20, "\x01"},
      {"status OK", FailedFrame{id, absl::CancelledError("x")}, 16, std::string(1, '\0')},
      {"status 17", FailedFrame{id, absl::CancelledError("x")}, 16, "\x11"},
  };
  for (const BadFrame& bad : cases) {
    std::string bytes = EncodeFrame(bad.frame);
    ASSERT_TRUE(DecodeFrame(BytesOf(Sealed(bytes))).ok()) << bad.what;
    bytes.replace(bad.at, bad.bytes.size(), bad.bytes);
    const auto read = DecodeFrame(BytesOf(Sealed(bytes)));
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << bad.what;
  }
}

TEST(Frames, LongStatusMessagesAreCut) {
  const FailedFrame failed{.id = {1}, .status = absl::InternalError(std::string(10'000, 'm'))};
  const auto read = DecodeFrame(BytesOf(EncodeFrame(failed)));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(std::get<FailedFrame>(*read).status.message().size(), kStatusMessageBytesMax);
}

TEST(FramesDeathTest, FailureWithoutReasonIsABug) {
  EXPECT_DEATH(EncodeFrame(FailedFrame{.id = {1}, .status = absl::OkStatus()}), "reason");
}

TEST(Checksums, DependOnEveryPart) {
  const std::vector<std::uint64_t> blocks = {1, 2, 3};
  const std::vector<std::uint64_t> swapped = {2, 1, 3};
  const std::vector<std::uint64_t> fewer = {1, 2};
  const std::uint64_t reference = CombinedChecksum({5}, blocks, "manifest");
  EXPECT_EQ(CombinedChecksum({5}, blocks, "manifest"), reference);
  EXPECT_NE(CombinedChecksum({6}, blocks, "manifest"), reference);
  EXPECT_NE(CombinedChecksum({5}, swapped, "manifest"), reference);
  EXPECT_NE(CombinedChecksum({5}, fewer, "manifest"), reference);
  EXPECT_NE(CombinedChecksum({5}, blocks, "manifesT"), reference);
  EXPECT_NE(CombinedChecksum({5}, blocks, ""), reference);
}

// A constant of the xxHash specification (XXH3, 64 bits, seed 0): both ends of a transfer may be
// different builds.
TEST(Checksums, AreXxHash3) { EXPECT_EQ(Checksum({}), 0x2d06800538d394c2u); }

}  // namespace
}  // namespace baleen::worker
