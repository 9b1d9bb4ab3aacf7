// Certificate files: what is refused at the start, and what happens when they change.
#include "security/certificates/certificates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "observability/base/clock.h"
#include "security/certificates/certificate_store.h"
#include "tests/fakes/fake_certificates.h"

namespace baleen::security {
namespace {

using fakes::FakeAuthority;
using fakes::ReadFile;
using fakes::WriteFile;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The wall clock runs, for dates; time between two looks is turned by hand.
class StepClock final : public Clock {
 public:
  absl::Duration Monotonic() const override { return steps_.Monotonic(); }
  absl::Time Wall() const override { return SystemClock().Wall(); }
  void Advance(absl::Duration step) { steps_.Advance(step); }

 private:
  ManualClock steps_;
};

class CertificateFilesTest : public ::testing::Test {
 protected:
  std::string OpenError(const CertificateFiles& files) {
    const auto opened = CertificateStore::Open(files, clock_);
    return opened.ok() ? "opened" : std::string(opened.status().message());
  }

  StepClock clock_;
  FakeAuthority authority_{"authority"};
};

TEST_F(CertificateFilesTest, AreReadWithWhatTheySay) {
  const auto files = authority_.IssueRole("worker", "cluster.local");
  const auto store = CertificateStore::Open(files, clock_);
  ASSERT_TRUE(store.ok()) << store.status();
  const auto current = (*store)->Current();
  EXPECT_THAT(current->uris, ElementsAre("spiffe://cluster.local/test/worker"));
  EXPECT_EQ(current->subject, "CN=worker");
  EXPECT_GT(current->not_after, absl::Now() + absl::Hours(23));
}

TEST_F(CertificateFilesTest, OfThePastOrTheFutureAreRefusedWithFileAndDate) {
  const auto expired =
      authority_.Issue("old", {.begins = -absl::Hours(3), .ends = -absl::Hours(2)});
  const std::string date =
      absl::FormatTime("%Y-%m-%dT%H", absl::Now() - absl::Hours(2), absl::UTCTimeZone());
  EXPECT_THAT(OpenError(expired), HasSubstr(expired.certificate + " has expired, on " + date));
  const auto early = authority_.Issue("new", {.begins = absl::Hours(1)});
  EXPECT_THAT(OpenError(early), HasSubstr(early.certificate + " is not valid before "));
}

TEST_F(CertificateFilesTest, ThatDoNotFitEachOtherAreRefused) {
  auto files = authority_.IssueRole("worker");
  files.key = authority_.IssueRole("router").key;
  EXPECT_EQ(OpenError(files),
            "the key in " + files.key + " is not that of the certificate in " + files.certificate);
}

TEST_F(CertificateFilesTest, ThatCanNotBeReadAreRefusedByName) {
  const auto good = authority_.IssueRole("worker");
  auto files = good;
  files.certificate = "/nowhere/c.pem";
  EXPECT_THAT(OpenError(files), HasSubstr("cannot read /nowhere/c.pem: No such file"));
  files = good;
  files.key = std::filesystem::path(good.key).parent_path();
  EXPECT_THAT(OpenError(files), HasSubstr("is not a plain file"));
  files = good;
  files.key = authority_.PathOf("pipe");
  ASSERT_EQ(::mkfifo(files.key.c_str(), 0600), 0);
  EXPECT_THAT(OpenError(files), HasSubstr("pipe is not a plain file"));
  files = good;
  files.authority = authority_.PathOf("large");
  WriteFile(files.authority, std::string(kPemFileBytesMax + 1, 'x'));
  EXPECT_THAT(OpenError(files), HasSubstr("the limit is 1048576"));
  if (::geteuid() == 0) return;  // who may read everything
  files = good;
  ::chmod(files.key.c_str(), 0);
  EXPECT_THAT(OpenError(files), HasSubstr("Permission denied"));
}

TEST_F(CertificateFilesTest, ThatHoldOtherThingsAreRefused) {
  const auto good = authority_.IssueRole("worker");
  auto files = good;
  files.certificate = authority_.PathOf("c.pem");
  WriteFile(files.certificate, "");
  EXPECT_THAT(OpenError(files), HasSubstr("c.pem has no certificate in PEM"));
  const std::string pem = ReadFile(good.certificate);
  WriteFile(files.certificate, pem + pem.substr(0, pem.size() / 2));
  EXPECT_THAT(OpenError(files), HasSubstr("certificate 2 of"));
  std::string many;
  for (std::size_t i = 0; i <= kChainCertificatesMax; ++i) many += pem;
  WriteFile(files.certificate, many);
  EXPECT_THAT(OpenError(files), HasSubstr("more than 16 certificates"));
  files = good;
  files.key = authority_.PathOf("k.pem");
  WriteFile(files.key,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
  EXPECT_THAT(OpenError(files), HasSubstr("no private key in PEM without a passphrase"));
}

TEST_F(CertificateFilesTest, AreExchangedOnceBothHalvesAreThere) {
  const auto files = authority_.IssueRole("worker");
  const auto store = *CertificateStore::Open(files, clock_);
  const auto first = store->Current();
  const auto others = authority_.Issue("other", {.uris = {"spiffe://test/new/worker"}});

  WriteFile(files.certificate, ReadFile(others.certificate));
  EXPECT_EQ(store->Current(), first) << "it looks once a second";
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(store->Current(), first) << "half of a pair is not used";
  WriteFile(files.key, ReadFile(others.key));
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(store->Current()->uris, ElementsAre("spiffe://test/new/worker"));
}

TEST_F(CertificateFilesTest, ThatTurnBadLeaveTheOldOnes) {
  const auto files = authority_.IssueRole("worker");
  const auto store = *CertificateStore::Open(files, clock_);
  const auto first = store->Current();
  for (const std::string& text : {std::string(), std::string("-----BEGIN CERTIFICATE-----\n"),
                                  std::string(kPemFileBytesMax + 1, 'x')}) {
    WriteFile(files.certificate, text);
    clock_.Advance(absl::Seconds(1));
    EXPECT_EQ(store->Current(), first);
  }
  std::filesystem::remove(files.certificate);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(store->Current(), first);
  authority_.IssueRole("worker");
  clock_.Advance(absl::Seconds(1));
  EXPECT_NE(store->Current(), first) << "and it still looks";
}

TEST_F(CertificateFilesTest, AreTakenWhenAnAuthorityIsAddedBeforeTheOldOneEnds) {
  const auto files = authority_.IssueRole("worker");
  const auto store = *CertificateStore::Open(files, clock_);
  const FakeAuthority next("next");
  WriteFile(files.authority, ReadFile(files.authority) + ReadFile(next.authority_file()));
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(store->Current()->pem.authority, ReadFile(files.authority));
}

TEST(Issuer, RefusesWhatDoesNotFitACertificate) {
  const Validity day{absl::Now(), absl::Now() + absl::Hours(24)};
  EXPECT_FALSE(Issuer::Make("", day).ok());
  EXPECT_FALSE(Issuer::Make(std::string(65, 'x'), day).ok());
  EXPECT_FALSE(Issuer::Make("x", {day.until, day.from}).ok());
  const auto issuer = Issuer::Make("x", day);
  ASSERT_TRUE(issuer.ok());
  EXPECT_FALSE(issuer->Issue({.common_name = "y", .hosts = {"a b"}, .validity = day}).ok());
  EXPECT_FALSE(issuer->Issue({.common_name = "y", .uris = {""}, .validity = day}).ok());
  EXPECT_TRUE(issuer->Issue({.common_name = "y", .hosts = {"::1", "a.b"}, .validity = day}).ok());
}

}  // namespace
}  // namespace baleen::security
