#include "tools/cli/doctor/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

namespace baleen::cli {
namespace {

struct LevelWords {
  std::string_view text;
  std::string_view json;
  Look look;
};

LevelWords WordsOf(CheckLevel level) {
  switch (level) {
    case CheckLevel::kGood:
      return {"ok", "ok", Look::kGreen};
    case CheckLevel::kNote:
      return {"note", "note", Look::kYellow};
    case CheckLevel::kBad:
      break;
  }
  return {"BAD", "bad", Look::kRed};
}

}  // namespace

bool AllWell(const Checks& checks) {
  return std::none_of(checks.begin(), checks.end(),
                      [](const Check& check) { return check.level == CheckLevel::kBad; });
}

std::string ToText(const Checks& checks, const Style& style) {
  std::size_t width = 0;
  for (const Check& check : checks) width = std::max(width, check.name.size());
  std::string text;
  for (const Check& check : checks) {
    const LevelWords words = WordsOf(check.level);
    text +=
        fmt::format("{}  {:<{}}  {}\n", style.Paint(words.look, fmt::format("{:<4}", words.text)),
                    check.name, width, check.detail);
    if (!check.fix.empty()) text += fmt::format("{:{}}  fix: {}\n", "", width + 6, check.fix);
  }
  return text;
}

std::string ToJson(const Checks& checks) {
  using Json = nlohmann::ordered_json;
  Json list = Json::array();
  for (const Check& check : checks) {
    list.push_back({{"name", check.name},
                    {"status", std::string(WordsOf(check.level).json)},
                    {"detail", check.detail},
                    {"fix", check.fix}});
  }
  const Json json = {{"ok", AllWell(checks)}, {"checks", std::move(list)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace baleen::cli
