#include "router/server/openai/json/document.h"

#include <bit>
#include <cmath>
#include <limits>

#include "observability/base/check.h"
#include "router/server/openai/json/writer.h"

namespace baleen::router::json {

std::string_view NameOf(Kind kind) {
  switch (kind) {
    case Kind::kNull:
      return "null";
    case Kind::kBoolean:
      return "a boolean";
    case Kind::kNumber:
      return "a number";
    case Kind::kString:
      return "a string";
    case Kind::kArray:
      return "an array";
    case Kind::kObject:
      return "an object";
  }
  return "nothing";
}

Kind Value::kind() const { return document_->nodes_[index_].kind; }

std::string_view Value::key() const {
  const Document::Node& node = document_->nodes_[index_];
  return document_->TextAt(node.key_begin, node.key_size);
}

bool Value::boolean() const {
  BALEEN_CHECK(is(Kind::kBoolean), "the kind was looked at before");
  return document_->nodes_[index_].boolean;
}

std::string_view Value::text() const {
  BALEEN_CHECK(is(Kind::kString), "the kind was looked at before");
  const std::uint64_t bits = document_->nodes_[index_].bits;
  return document_->TextAt(bits >> 32, static_cast<std::uint32_t>(bits));
}

double Value::number() const {
  BALEEN_CHECK(is(Kind::kNumber), "the kind was looked at before");
  const Document::Node& node = document_->nodes_[index_];
  switch (node.number) {
    case Document::Number::kSigned:
      return static_cast<double>(static_cast<std::int64_t>(node.bits));
    case Document::Number::kUnsigned:
      return static_cast<double>(node.bits);
    case Document::Number::kFloat:
      break;
  }
  return std::bit_cast<double>(node.bits);
}

std::optional<std::int64_t> Value::integer() const {
  constexpr double kExactMax = 9007199254740992.0;  // 2^53: up to here a double is one integer
  BALEEN_CHECK(is(Kind::kNumber), "the kind was looked at before");
  const Document::Node& node = document_->nodes_[index_];
  if (node.number == Document::Number::kSigned) return static_cast<std::int64_t>(node.bits);
  if (node.number == Document::Number::kUnsigned) {
    if (node.bits > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) return std::nullopt;
    return static_cast<std::int64_t>(node.bits);
  }
  const double value = std::bit_cast<double>(node.bits);
  if (std::fabs(value) > kExactMax || value != std::floor(value)) return std::nullopt;
  return static_cast<std::int64_t>(value);
}

std::optional<std::uint64_t> Value::unsigned_integer() const {
  const Document::Node& node = document_->nodes_[index_];
  if (node.kind == Kind::kNumber && node.number == Document::Number::kUnsigned) return node.bits;
  const auto value = integer();
  if (!value || *value < 0) return std::nullopt;
  return static_cast<std::uint64_t>(*value);
}

Value::Iterator Value::begin() const {
  BALEEN_CHECK(is(Kind::kArray) || is(Kind::kObject), "the kind was looked at before");
  return Iterator(*document_, index_ + 1);
}

Value::Iterator Value::end() const { return Iterator(*document_, document_->nodes_[index_].end); }

std::size_t Value::size() const {
  std::size_t count = 0;
  for (auto it = begin(); it != end(); ++it) ++count;
  return count;
}

std::optional<Value> Value::Find(std::string_view key) const {
  for (const Value member : *this) {
    if (member.key() == key) return member;
  }
  return std::nullopt;
}

std::string Value::ToText() const {
  // Iterative: the containers that are open, by where they end.
  struct Container {
    std::uint32_t end;
    char close;
  };
  std::vector<Container> open;
  std::string out;
  const std::uint32_t last = document_->nodes_[index_].end;
  const auto close_ended = [&](std::uint32_t index) {
    while (!open.empty() && open.back().end == index) {
      out += open.back().close;
      open.pop_back();
    }
  };
  for (std::uint32_t i = index_; i < last; ++i) {
    close_ended(i);
    const Document::Node& node = document_->nodes_[i];
    const Value value(*document_, i);
    if (i != index_ && out.back() != '[' && out.back() != '{') out += ',';
    if (!open.empty() && open.back().close == '}') {
      AppendString(value.key(), &out);
      out += ':';
    }
    switch (node.kind) {
      case Kind::kNull:
        out += "null";
        break;
      case Kind::kBoolean:
        out += node.boolean ? "true" : "false";
        break;
      case Kind::kNumber:
        if (const auto whole = value.unsigned_integer()) {
          AppendInteger(*whole, &out);
        } else if (const auto negative = value.integer()) {
          AppendInteger(*negative, &out);
        } else {
          AppendNumber(value.number(), &out);
        }
        break;
      case Kind::kString:
        AppendString(value.text(), &out);
        break;
      case Kind::kArray:
      case Kind::kObject:
        out += node.kind == Kind::kArray ? '[' : '{';
        open.push_back({node.end, node.kind == Kind::kArray ? ']' : '}'});
        break;
    }
  }
  close_ended(last);
  return out;
}

}  // namespace baleen::router::json
