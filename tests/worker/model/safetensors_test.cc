// The safetensors header parser: every malformed kind is refused with the tensor and the limit in
// the message.
#include "worker/model/format/safetensors.h"

#include <cstring>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace baleen::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string LengthPrefix(std::uint64_t length) {
  std::string prefix(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) prefix[i] = static_cast<char>(length >> (8 * i) & 0xff);
  return prefix;
}

// A whole file: header and `data_bytes` bytes of data.
std::string File(const std::string& header, std::size_t data_bytes) {
  return LengthPrefix(header.size()) + header + std::string(data_bytes, '\x01');
}

absl::StatusOr<std::vector<TensorEntry>> Parse(const std::string& file) {
  return ParseSafetensorsHeader(std::as_bytes(std::span(file)), file.size());
}

TEST(Safetensors, ReadsTensorsInTheOrderOfTheirBytes) {
  const std::string header = R"({"__metadata__":{"format":"pt"},)"
                             R"("late":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
                             R"("empty":{"dtype":"F32","shape":[0,64],"data_offsets":[20,20]},)"
                             R"("early":{"data_offsets":[0,8],"shape":[],"dtype":"I64"}}   )";
  const absl::StatusOr<std::vector<TensorEntry>> entries = Parse(File(header, 20));
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 3u);
  const std::uint64_t data = 8 + header.size();
  EXPECT_EQ((*entries)[0].name, "early");
  EXPECT_EQ((*entries)[0].dtype, DType::kI64);
  EXPECT_THAT((*entries)[0].shape, IsEmpty());
  EXPECT_EQ((*entries)[0].begin, data);
  EXPECT_EQ((*entries)[1].name, "late");
  EXPECT_THAT((*entries)[1].shape, ElementsAre(2u, 3u));
  EXPECT_EQ((*entries)[1].begin, data + 8);
  EXPECT_EQ((*entries)[1].end, data + 20);
  EXPECT_EQ((*entries)[2].name, "empty");
  EXPECT_EQ((*entries)[2].begin, (*entries)[2].end);
}

TEST(Safetensors, ReadsAFileWithoutTensors) {
  EXPECT_THAT(*Parse(File("{}", 0)), IsEmpty());
  EXPECT_THAT(*Parse(File(R"({"__metadata__":{}})", 0)), IsEmpty());
}

TEST(Safetensors, KnowsTheSizeOfEveryDtype) {
  struct Case {
    DType dtype;
    std::string name;
    std::size_t bytes;
  };
  const Case cases[] = {
      {DType::kBool, "BOOL", 1}, {DType::kU8, "U8", 1},          {DType::kI8, "I8", 1},
      {DType::kI16, "I16", 2},   {DType::kU16, "U16", 2},        {DType::kF16, "F16", 2},
      {DType::kBF16, "BF16", 2}, {DType::kI32, "I32", 4},        {DType::kU32, "U32", 4},
      {DType::kF32, "F32", 4},   {DType::kF64, "F64", 8},        {DType::kI64, "I64", 8},
      {DType::kU64, "U64", 8},   {DType::kF8E4M3, "F8_E4M3", 1}, {DType::kF8E5M2, "F8_E5M2", 1},
  };
  for (const Case& test : cases) {
    EXPECT_EQ(DTypeName(test.dtype), test.name);
    EXPECT_EQ(DTypeBytes(test.dtype), test.bytes);
    const std::string header = fmt::format(
        R"({{"t":{{"dtype":"{}","shape":[3],"data_offsets":[0,{}]}}}})", test.name, 3 * test.bytes);
    const auto entries = Parse(File(header, 3 * test.bytes));
    ASSERT_TRUE(entries.ok()) << entries.status();
    EXPECT_EQ(entries->front().dtype, test.dtype);
  }
}

// A header with the one tensor "t", whose fields are `fields`.
std::string One(const std::string& fields) { return R"({"t":{)" + fields + "}}"; }

struct Broken {
  const char* name;
  std::string file;
  std::vector<std::string> says;
};

std::vector<Broken> BrokenFrames() {
  return {
      {"empty file", "", {"truncated: 0 bytes", "at least 8"}},
      {"shorter than the length", std::string(7, '\0'), {"truncated: 7 bytes"}},
      {"header longer than the file", LengthPrefix(100) + "{}", {"truncated", "100", "10 bytes"}},
      {"header length over the limit",
       LengthPrefix(kHeaderBytesMax + 1) + "{}",
       {"100000001", "the limit is 100000000"}},
      {"huge header length",
       LengthPrefix(~0ull) + "{}",
       {"18446744073709551615", "the limit is 100000000"}},
      {"header length that wraps with its own 8 bytes",
       LengthPrefix(~0ull - 7) + "{}",
       {"the limit is 100000000"}},
      {"empty header", LengthPrefix(0), {"does not begin with '{'"}},
      {"not an object", File("[]", 0), {"does not begin with '{'"}},
      {"leading space", File(" {}", 0), {"does not begin with '{'"}},
      {"not JSON", File("{]", 0), {"not valid JSON"}},
      {"bytes after the object", File("{} {}", 0), {"not valid JSON"}},
      {"NUL padding", File(std::string("{}\0", 3), 0), {"not valid JSON"}},
      {"not UTF-8", File("{\"\xff\":{}}", 0), {"not valid JSON"}},
      {"NaN",
       File(One(R"("dtype":"F32","shape":[NaN],"data_offsets":[0,4])"), 4),
       {"not valid JSON"}},
      {"deep nesting",
       File(One(R"("dtype":"F32","data_offsets":[0,4],"shape":)" + std::string(50'000, '[')), 4),
       {"\"t\"", "an array"}},
      {"deep nesting in the metadata",
       File(R"({"__metadata__":)" + std::string(50'000, '{'), 0),
       {"not valid JSON"}},
      {"duplicate name",
       File(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
            R"("t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
            2),
       {"duplicate tensor name \"t\""}},
      {"duplicate name, spelled with an escape",
       File(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
            R"("\u0074":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
            2),
       {"duplicate tensor name \"t\""}},
      {"duplicate metadata",
       File(R"({"__metadata__":{},"__metadata__":{}})", 0),
       {"duplicate", "__metadata__"}},
      {"duplicate metadata key",
       File(R"({"__metadata__":{"a":"1","a":"2"}})", 0),
       {"__metadata__", "duplicate key \"a\""}},
      {"metadata that is no object", File(R"({"__metadata__":null})", 0), {"null"}},
      {"metadata that is no string",
       File(R"({"__metadata__":{"a":1}})", 0),
       {"__metadata__: 1 is not a string"}},
      {"long name",
       File("{\"" + std::string(kTensorNameBytesMax + 1, 'n') + "\":{}}", 0),
       {"513 bytes", "the limit is 512"}},
      {"tensor that is no object", File(R"({"t":5})", 0), {"unexpected 5"}},
  };
}

std::vector<Broken> BrokenTensors() {
  const auto file = [](const std::string& fields, std::size_t bytes = 4) {
    return File(One(fields), bytes);
  };
  return {
      {"no dtype",
       file(R"("shape":[1],"data_offsets":[0,4])"),
       {"\"t\"", "needs dtype, shape and data_offsets"}},
      {"no shape", file(R"("dtype":"F32","data_offsets":[0,4])"), {"\"t\"", "needs dtype"}},
      {"no offsets", file(R"("dtype":"F32","shape":[1])"), {"\"t\"", "needs dtype"}},
      {"unknown field",
       file(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1])"),
       {"\"t\"", "unknown field \"strides\""}},
      {"duplicate field",
       file(R"("dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4])"),
       {"\"t\"", "duplicate field \"shape\""}},
      {"unknown dtype",
       file(R"("dtype":"F31","shape":[1],"data_offsets":[0,4])"),
       {"\"t\"", "unknown dtype \"F31\""}},
      {"dtype that is no string",
       file(R"("dtype":7,"shape":[1],"data_offsets":[0,4])"),
       {"\"t\"", "unexpected 7"}},
      {"shape that is no array",
       file(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"),
       {"\"t\"", "unexpected 1"}},
      {"negative dimension",
       file(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"),
       {"\"t\"", "shape: -1"}},
      {"fractional dimension",
       file(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"),
       {"\"t\"", "shape: \"1.0\""}},
      {"dimension beyond 64 bits",
       file(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4])"),
       {"\"t\"", "not a dimension"}},
      {"null dimension",
       file(R"("dtype":"F32","shape":[null],"data_offsets":[0,4])"),
       {"\"t\"", "null is not a dimension"}},
      {"boolean dimension",
       file(R"("dtype":"F32","shape":[true],"data_offsets":[0,4])"),
       {"\"t\"", "boolean"}},
      {"string dimension",
       file(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])"),
       {"\"t\"", "not a dimension"}},
      {"too many dimensions",
       file(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])"),
       {"\"t\"", "more than 8 dimensions"}},
      {"shape whose product wraps to a fitting number",
       file(R"("dtype":"F32","shape":[4294967296,4294967296,1],"data_offsets":[0,0])", 0),
       {"\"t\"", "does not fit 64 bits"}},
      {"shape whose bytes wrap",
       file(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])"),
       {"\"t\"", "does not fit 64 bits"}},
      {"shape larger than the range",
       file(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"),
       {"\"t\"", "takes 8 bytes", "give 4"}},
      {"shape smaller than the range",
       file(R"("dtype":"U8","shape":[3],"data_offsets":[0,4])"),
       {"\"t\"", "takes 3 bytes", "give 4"}},
  };
}

std::vector<Broken> BrokenOffsets() {
  const auto file = [](const std::string& fields, std::size_t bytes = 4) {
    return File(One(fields), bytes);
  };
  return {
      {"one offset",
       file(R"("dtype":"F32","shape":[1],"data_offsets":[0])"),
       {"\"t\"", "1 numbers, not 2"}},
      {"three offsets",
       file(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])"),
       {"\"t\"", "more than 2 numbers"}},
      {"negative offset",
       file(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"),
       {"\"t\"", "-4 is not an offset"}},
      {"offsets that run backwards",
       file(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"),
       {"\"t\"", "run backwards"}},
      {"end beyond the file",
       file(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"),
       {"\"t\"", "beyond the file's 4 data bytes"}},
      {"offsets near 2^64",
       file(R"("dtype":"F32","shape":[1],)"
            R"("data_offsets":[18446744073709551611,18446744073709551615])"),
       {"\"t\"", "beyond the file's 4 data bytes"}},
      {"hole at the start",
       file(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])", 8),
       {"\"t\"", "hole"}},
      {"bytes after the last tensor",
       file(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])", 8),
       {"end at data byte 4, the file has 8"}},
      {"data without tensors", File("{}", 4), {"end at data byte 0, the file has 4"}},
  };
}

TEST(Safetensors, RefusesAndNamesTensorAndLimit) {
  std::vector<Broken> cases = BrokenFrames();
  for (const auto& more : {BrokenTensors(), BrokenOffsets()}) {
    cases.insert(cases.end(), more.begin(), more.end());
  }
  for (const Broken& test : cases) {
    const absl::Status status = Parse(test.file).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.name;
    for (const std::string& part : test.says) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(part)) << test.name;
    }
    EXPECT_LT(status.message().size(), 400u) << test.name;
  }
}

std::string Two(const std::string& first_offsets, const std::string& second_offsets) {
  return fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},)"
                     R"("b":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                     first_offsets, second_offsets);
}

TEST(Safetensors, RefusesOverlapsAndHolesBetweenTensors) {
  EXPECT_TRUE(Parse(File(Two("[0,4]", "[4,8]"), 8)).ok());
  EXPECT_TRUE(Parse(File(Two("[4,8]", "[0,4]"), 8)).ok());
  const auto error = [](const std::string& header, std::size_t bytes) {
    return std::string(Parse(File(header, bytes)).status().message());
  };
  EXPECT_THAT(
      error(Two("[0,4]", "[3,7]"), 7),
      HasSubstr("tensor \"b\" begins at data byte 3, the one before it ends at 4: they overlap"));
  EXPECT_THAT(error(Two("[0,4]", "[0,4]"), 4), HasSubstr("they overlap"));
  EXPECT_THAT(
      error(Two("[0,4]", "[5,9]"), 9),
      HasSubstr(
          "tensor \"b\" begins at data byte 5, the one before it ends at 4: there is a hole"));
}

TEST(Safetensors, EveryTruncationOfAFileIsRefused) {
  const std::string file = File(Two("[0,4]", "[4,8]"), 8);
  for (std::size_t length = 0; length < file.size(); ++length) {
    EXPECT_FALSE(Parse(file.substr(0, length)).ok()) << length;
  }
}

TEST(Safetensors, ChecksSizesFarBeyondWhatIsMapped) {
  const std::string head = File(
      R"({"t":{"dtype":"F8_E4M3","shape":[1048576,1048576],"data_offsets":[0,1099511627776]}})", 0);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(head));
  EXPECT_TRUE(ParseSafetensorsHeader(bytes, head.size() + (1ull << 40)).ok());
  EXPECT_FALSE(ParseSafetensorsHeader(bytes, head.size() + (1ull << 40) - 1).ok());
}

}  // namespace
}  // namespace baleen::worker
