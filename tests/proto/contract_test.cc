// The contract: ids, block hashes, and the one table of reasons.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "observability/metrics/metrics.h"
#include "proto/contract/block_hash.h"
#include "proto/contract/ids.h"
#include "proto/contract/limits.h"
#include "proto/contract/model_name.h"
#include "proto/contract/status.h"

namespace baleen::contract {
namespace {

std::vector<std::int32_t> Tokens(std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

TEST(BlockHash, OneHashForEachWholeBlock) {
  const BlockHashKey key{.tenant_salt = "salt", .model_digest = "digest"};
  EXPECT_EQ(HashBlocks(key, Tokens(0)).size(), 0u);
  EXPECT_EQ(HashBlocks(key, Tokens(63)).size(), 0u);
  EXPECT_EQ(HashBlocks(key, Tokens(64)).size(), 1u);
  EXPECT_EQ(HashBlocks(key, Tokens(200)).size(), 3u);
}

TEST(BlockHash, ChainsDependOnEverythingBefore) {
  const BlockHashKey key{.tenant_salt = "salt", .model_digest = "digest"};
  const auto tokens = Tokens(192);
  const auto hashes = HashBlocks(key, tokens);
  auto changed = tokens;
  changed[70] += 1;
  const auto other = HashBlocks(key, changed);
  EXPECT_EQ(hashes[0], other[0]);
  EXPECT_NE(hashes[1], other[1]);
  EXPECT_NE(hashes[2], other[2]) << "an equal block after a different one is another block";
}

TEST(BlockHash, TenantsAndModelsDoNotShare) {
  const auto tokens = Tokens(64);
  const auto base = HashBlocks({.tenant_salt = "a", .model_digest = "m"}, tokens);
  EXPECT_NE(base, HashBlocks({.tenant_salt = "b", .model_digest = "m"}, tokens));
  EXPECT_NE(base, HashBlocks({.tenant_salt = "a", .model_digest = "n"}, tokens));
}

TEST(Status, TableRoundTripsThroughCodeAndMessage) {
  std::set<std::string> names;
  for (const ReasonRow& row : ReasonTable()) {
    const absl::Status status = MakeStatus(row.reason, "what: and why");
    EXPECT_EQ(status.code(), row.grpc);
    EXPECT_EQ(ReasonOf(status), row.reason) << row.name;
    EXPECT_EQ(HttpCode(status), row.http) << row.name;
    names.emplace(row.name);
  }
  EXPECT_EQ(names.size(), ReasonTable().size()) << "names are unique";
}

TEST(Status, ForeignStatusHasNoReasonButAnHttpCode) {
  EXPECT_EQ(ReasonOf(absl::UnavailableError("connection reset")), std::nullopt);
  EXPECT_EQ(ReasonOf(absl::InternalError("queue_full: but with another code")), std::nullopt);
  EXPECT_EQ(HttpCode(absl::UnavailableError("x")), 503);
  EXPECT_EQ(HttpCode(absl::OkStatus()), 200);
  EXPECT_EQ(HttpCode(absl::DataLossError("x")), 500);
}

// The metric's label set is a copy of this table, because observability includes no proto: they
// must stay equal.
TEST(Status, EveryReasonIsAMetricOutcome) {
  metrics::Registry registry;
  const metrics::RouterMetrics router(registry, {.version = "test", .component = "router"});
  const std::string page = registry.Text();
  for (const ReasonRow& row : ReasonTable()) {
    EXPECT_NE(page.find("outcome=\"" + std::string(row.name) + "\""), std::string::npos)
        << row.name;
  }
  EXPECT_NE(page.find("outcome=\"finished\""), std::string::npos);
}

// docs/errors.md is the table's prose: a row that is changed in one place only is a lie in the
// other.
TEST(Status, DocumentationListsEveryRow) {
  std::stringstream page;
  page << std::ifstream("docs/errors.md").rdbuf();
  for (const ReasonRow& row : ReasonTable()) {
    const std::string start = "| `" + std::string(row.name) + "` | " +
                              std::string(absl::StatusCodeToString(row.grpc)) + " | " +
                              std::to_string(row.http) + " | " + (row.retryable ? "yes" : "no");
    EXPECT_NE(page.str().find(start), std::string::npos) << start;
  }
}

// Routers resolved links and workers did not: a model behind a link had two names, and no worker. A
// worker in the directory itself called its model ".".
TEST(ModelName, IsTheLastComponentAsWritten) {
  const std::string here = std::filesystem::current_path().filename();
  for (const auto& [directory, name] :
       std::vector<std::pair<std::string, std::string>>{{"models/nano", "nano"},
                                                        {"models/nano/", "nano"},
                                                        {"/a/b//", "b"},
                                                        {"models/./nano/.", "nano"},
                                                        {"models/nano/..", "models"},
                                                        {".", here},
                                                        {"./", here},
                                                        {"/", ""}}) {
    EXPECT_EQ(ModelNameOf(directory), name) << directory;
  }
  const std::filesystem::path link = ::testing::TempDir() + "link-to-a-model";
  std::filesystem::remove(link);
  std::filesystem::create_directory_symlink(std::filesystem::absolute("models/nano"), link);
  EXPECT_EQ(ModelNameOf(link), "link-to-a-model");
  std::filesystem::remove(link);
}

TEST(Ids, AreReadableAndOrdered) {
  EXPECT_EQ(ToString(RequestId{.router = 0xab, .number = 7}), "req-00000000000000ab-7");
  const RequestKey older{.id = {1, 1}, .attempt = 1};
  const RequestKey newer{.id = {1, 1}, .attempt = 2};
  EXPECT_LT(older, newer);
  EXPECT_NE(RandomNonZero(), RandomNonZero());
}

}  // namespace
}  // namespace baleen::contract
