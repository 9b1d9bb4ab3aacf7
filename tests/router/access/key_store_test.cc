// Keys as they are presented, and a file of them that changes.
#include "router/access/key_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "observability/base/clock.h"
#include "proto/contract/status.h"
#include "router/access/access.h"
#include "router/access/key_file.h"

namespace baleen::router {
namespace {

using contract::Reason;
using ::testing::HasSubstr;

class KeyStoreTest : public ::testing::Test {
 protected:
  KeyStoreTest() {
    std::string folder = std::filesystem::temp_directory_path() / "baleen-keys-XXXXXX";
    folder_ = ::mkdtemp(folder.data());
    file_ = folder_ + "/keys.json";
  }
  ~KeyStoreTest() override { std::filesystem::remove_all(folder_); }

  // As an editor may do it: in place.
  void Write(const std::string& text) { std::ofstream(file_, std::ios::binary) << text; }

  static KeyEntry Entry(const std::string& key, const std::string& name) {
    return {.digest = DigestOfKey(key), .caller = {.tenant = "of-" + name, .key_name = name}};
  }
  void WriteKeys(const std::vector<KeyEntry>& entries) { Write(FormatKeyFile(entries)); }

  std::string NameOf(const KeyStore& store, const std::string& key) {
    const auto caller = store.Authenticate("Bearer " + key);
    return caller.ok() ? (*caller)->key_name : std::string(caller.status().message());
  }

  std::string folder_;
  std::string file_;
  ManualClock clock_;
};

TEST_F(KeyStoreTest, WithoutAFileEverybodyIsTheSame) {
  const KeyStore store;
  EXPECT_FALSE(store.required());
  for (const char* authorization : {"", "Bearer x", "Basic eDp5"}) {
    const auto caller = store.Authenticate(authorization);
    ASSERT_TRUE(caller.ok());
    EXPECT_EQ((*caller)->tenant, "");
    EXPECT_EQ((*caller)->tokens_per_minute, 0u);
    EXPECT_TRUE((*caller)->MayUse("anything"));
  }
}

TEST_F(KeyStoreTest, KnowsItsKeysOnly) {
  std::vector<KeyEntry> entries;
  for (int i = 0; i < 1000; ++i) {
    entries.push_back(Entry("key-" + std::to_string(i), "n" + std::to_string(i)));
  }
  WriteKeys(entries);
  const auto store = *KeyStore::Open(file_, clock_);
  EXPECT_TRUE(store->required());
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(NameOf(*store, "key-" + std::to_string(i)), "n" + std::to_string(i));
  }
  for (const char* key : {"key-1000", "key-", "KEY-1", "key-1x", "n1"}) {
    EXPECT_EQ(NameOf(*store, key), "unauthenticated: the API key is not known");
  }
  // Neither is what the file shows.
  EXPECT_EQ(NameOf(*store, FormatKeyFile(entries).substr(40, 64)),
            "unauthenticated: the API key is not known");
}

TEST_F(KeyStoreTest, ReadsTheHeaderAsItsStandardSays) {
  WriteKeys({Entry("secret", "n")});
  const auto store = *KeyStore::Open(file_, clock_);
  for (const char* good : {"Bearer secret", "bearer secret", "BEARER   secret", "Bearer secret "}) {
    EXPECT_TRUE(store->Authenticate(good).ok()) << good;
  }
  for (const std::string bad :
       {"", "secret", "Bearer", "Bearer ", "Bearersecret", "Basic secret", "Bearer secret x",
        "Bearer secret,Bearer secret", "Bearer\tsecret"}) {
    const auto caller = store->Authenticate(bad);
    EXPECT_EQ(contract::ReasonOf(caller.status()), Reason::kUnauthenticated) << bad;
    EXPECT_THAT(std::string(caller.status().message()), ::testing::Not(HasSubstr("secret")));
  }
  EXPECT_THAT(NameOf(*store, std::string(kKeyBytesMax + 1, 'x')), HasSubstr("the limit is 256"));
}

TEST_F(KeyStoreTest, KeysExpire) {
  KeyEntry entry = Entry("secret", "n");
  entry.expires = clock_.Wall() + absl::Minutes(1);
  WriteKeys({entry});
  const auto store = *KeyStore::Open(file_, clock_);
  EXPECT_EQ(NameOf(*store, "secret"), "n");
  clock_.Advance(absl::Minutes(1));
  EXPECT_THAT(NameOf(*store, "secret"), HasSubstr("the API key has expired, on "));
}

TEST_F(KeyStoreTest, AChangedFileIsTakenWithinASecond) {
  WriteKeys({Entry("old", "a")});
  const auto store = *KeyStore::Open(file_, clock_);
  const CallerPointer caller = *store->Authenticate("Bearer old");
  WriteKeys({Entry("new", "b")});
  EXPECT_EQ(NameOf(*store, "old"), "a") << "it looks once a second";
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(NameOf(*store, "new"), "b");
  EXPECT_EQ(NameOf(*store, "old"), "unauthenticated: the API key is not known");
  EXPECT_EQ(caller->tenant, "of-a") << "a request keeps its caller";
}

TEST_F(KeyStoreTest, AFileThatIsWrongLeavesTheOldKeys) {
  WriteKeys({Entry("secret", "n")});
  const auto store = *KeyStore::Open(file_, clock_);
  const std::string good = FormatKeyFile(std::vector{Entry("secret", "n"), Entry("next", "m")});
  for (const std::string& text :
       {std::string(), good.substr(0, good.size() / 2), std::string("{\"keys\": [{}]}"),
        std::string(kKeyFileBytesMax + 1, ' ')}) {
    Write(text);
    clock_.Advance(absl::Seconds(1));
    EXPECT_EQ(NameOf(*store, "secret"), "n");
  }
  std::filesystem::remove(file_);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(NameOf(*store, "secret"), "n");
  Write(good);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(NameOf(*store, "next"), "m");
}

TEST_F(KeyStoreTest, AWrongFileAtTheStartIsRefusedWithItsLine) {
  Write("{\"keys\": [\n5]}");
  EXPECT_EQ(std::string(KeyStore::Open(file_, clock_).status().message()),
            file_ + ": line 2: \"keys\" can not be, or hold, a number");
  EXPECT_EQ(KeyStore::Open(folder_ + "/none", clock_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(KeyStoreTest, IsExchangedUnderTraffic) {
  WriteKeys({Entry("always", "n")});
  const auto store = *KeyStore::Open(file_, clock_);
  std::atomic<bool> stop = false;
  std::atomic<int> refused = 0;
  std::vector<std::jthread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&] {
      while (!stop) refused += NameOf(*store, "always") == "n" ? 0 : 1;
    });
  }
  for (int i = 0; i < 50; ++i) {
    WriteKeys({Entry("always", "n"), Entry("key-" + std::to_string(i), "m")});
    clock_.Advance(absl::Seconds(1));
    (void)store->Authenticate("Bearer x");
  }
  stop = true;
  callers.clear();
  EXPECT_EQ(refused, 0);
}

TEST_F(KeyStoreTest, SaltsAreOfTheSecretAndTheTenant) {
  const auto open = [&](const std::string& text) {
    Write(text);
    return TenantSalts::FromFile(file_);
  };
  EXPECT_THAT(std::string(open("short").status().message()), HasSubstr("5 bytes, not 16 to 4096"));
  EXPECT_FALSE(open(std::string(4097, 'x')).ok());
  const TenantSalts one = *open("0123456789abcdef");
  const TenantSalts same = *open("0123456789abcdef");
  const TenantSalts other = *open("0123456789abcdeF");
  EXPECT_EQ(one.Of("a"), same.Of("a")) << "routers with one secret share the cache";
  EXPECT_EQ(one.Of("a").size(), 32u);
  EXPECT_NE(one.Of("a"), one.Of("b"));
  EXPECT_NE(one.Of("a"), other.Of("a"));
  EXPECT_NE(TenantSalts().Of("a"), TenantSalts().Of("a"));
}

TEST_F(KeyStoreTest, AccessIsAllOfIt) {
  const auto open = Access::Open({}, clock_);
  ASSERT_TRUE(open.ok());
  EXPECT_FALSE((*open)->keys->required());
  EXPECT_FALSE(Access::Open({.api_keys_file = "/nowhere"}, clock_).ok());
  EXPECT_FALSE(Access::Open({.cache_secret_file = "/nowhere"}, clock_).ok());
}

}  // namespace
}  // namespace baleen::router
