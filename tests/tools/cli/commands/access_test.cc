// baleen keys and baleen certs: the files they make are those that router and worker take.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "observability/base/clock.h"
#include "router/access/key_store.h"
#include "security/authorization/identity.h"
#include "security/certificates/certificate_store.h"
#include "tests/fakes/fake_certificates.h"
#include "tools/cli/access/certs_command.h"
#include "tools/cli/access/key_file_edits.h"
#include "tools/cli/cluster/spec/certificate_paths.h"
#include "tools/cli/cluster/spec/cluster_spec.h"

namespace baleen::cli {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class AccessFiles : public ::testing::Test {
 protected:
  AccessFiles() {
    std::string folder = std::filesystem::temp_directory_path() / "baleen-access-XXXXXX";
    folder_ = ::mkdtemp(folder.data());
  }
  ~AccessFiles() override { std::filesystem::remove_all(folder_); }

  static std::uint32_t ModeOf(const std::string& path) {
    struct stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
    return status.st_mode & 0777u;
  }

  std::string folder_;
};

TEST_F(AccessFiles, AKeyThatIsAddedIsKnownToARouterUntilItIsRemoved) {
  const std::string file = folder_ + "/keys.json";
  const auto key = AddKey(file, {.caller = {.tenant = "acme", .key_name = "ci"}});
  ASSERT_TRUE(key.ok()) << key.status();
  ASSERT_TRUE(AddKey(file, {.caller = {.tenant = "acme", .key_name = "other"}}).ok());
  EXPECT_EQ(ModeOf(file), 0600u);
  EXPECT_THAT(fakes::ReadFile(file), Not(HasSubstr(*key)));
  {
    const auto store = *router::KeyStore::Open(file, SystemClock());
    const auto caller = store->Authenticate("Bearer " + *key);
    ASSERT_TRUE(caller.ok()) << caller.status();
    EXPECT_EQ((*caller)->tenant, "acme");
  }
  EXPECT_TRUE(RemoveKey(file, "ci").ok());
  EXPECT_FALSE((*router::KeyStore::Open(file, SystemClock()))->Authenticate("Bearer " + *key).ok());
  EXPECT_EQ(ReadKeys(file)->size(), 1u);
}

TEST_F(AccessFiles, KeysThatARouterWouldRefuseAreNotWritten) {
  const std::string file = folder_ + "/keys.json";
  const router::KeyEntry entry{
      .caller = {.tenant = "acme", .key_name = "ci", .tokens_per_minute = 5}};
  ASSERT_TRUE(AddKey(file, entry).ok());
  const std::string before = fakes::ReadFile(file);
  EXPECT_EQ(AddKey(file, entry).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(
      std::string(AddKey(file, {.caller = {.tenant = "acme", .key_name = "b"}}).status().message()),
      HasSubstr("differ in \"tokens_per_minute\""));
  EXPECT_FALSE(AddKey(file, {.caller = {.tenant = "a b", .key_name = "c"}}).ok());
  EXPECT_EQ(RemoveKey(file, "nobody").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(fakes::ReadFile(file), before);
  fakes::WriteFile(file, "{\n5");
  EXPECT_THAT(std::string(AddKey(file, entry).status().message()), HasSubstr(file + ": line 2: "));
  EXPECT_EQ(fakes::ReadFile(file), "{\n5") << "what can not be read is not replaced";
}

TEST_F(AccessFiles, CertificatesAreOfOneClusterAndTheirKeysPrivate) {
  const CertsOptions options{.folder = folder_ + "/certs", .trust_domain = "try.local"};
  ASSERT_TRUE(MakeCertificates(options, absl::Now()).ok());
  for (const auto& [name, role] : {std::pair(kRouterName, security::Role::kRouter),
                                   std::pair(kWorkerName, security::Role::kWorker)}) {
    const auto store = security::CertificateStore::Open(
        {.certificate = CertificatePath(options.folder, name),
         .key = KeyPath(options.folder, name),
         .authority = CertificatePath(options.folder, kAuthorityName)},
        SystemClock());
    ASSERT_TRUE(store.ok()) << store.status();
    const auto identity = security::IdentityOf((*store)->Current()->uris);
    ASSERT_TRUE(identity.ok()) << identity.status();
    EXPECT_EQ(identity->role, role);
    EXPECT_EQ(identity->trust_domain, "try.local");
  }
  for (const auto name : {kAuthorityName, kPublicName, kRouterName, kWorkerName}) {
    EXPECT_EQ(ModeOf(KeyPath(options.folder, name)), 0600u);
  }
  EXPECT_EQ(ModeOf(options.folder), 0700u);
}

TEST_F(AccessFiles, CertificatesReplaceNothing) {
  const CertsOptions options{.folder = folder_};
  fakes::WriteFile(KeyPath(folder_, kWorkerName), "precious");
  EXPECT_THAT(std::string(MakeCertificates(options, absl::Now()).message()),
              HasSubstr("worker-key.pem is there already"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
  EXPECT_FALSE(
      MakeCertificates({.folder = folder_ + "/x", .trust_domain = "A b"}, absl::Now()).ok());
  EXPECT_FALSE(MakeCertificates({.folder = folder_ + "/x", .hosts = {"a b"}}, absl::Now()).ok());
  EXPECT_FALSE(MakeCertificates({.folder = "/nowhere/x"}, absl::Now()).ok());
}

TEST(ClusterWithCertificates, GivesThemToEveryProcess) {
  ClusterSpec spec{.model_directory = "m", .certificates_folder = "d", .api_keys_file = "k"};
  spec.decode.groups = 1;
  const ReadyLine router = {{"workers", "127.0.0.1:1"}};
  const auto of_router = ArgumentsOf(spec, {.kind = ChildKind::kRouter}, nullptr, nullptr);
  for (const char* path :
       {"d/public.pem", "d/public-key.pem", "d/router.pem", "d/router-key.pem", "d/ca.pem", "k"}) {
    EXPECT_THAT(of_router, Contains(path));
  }
  const auto of_worker = ArgumentsOf(spec, {.role = "decode"}, &router, nullptr);
  for (const char* path : {"d/worker.pem", "d/worker-key.pem", "d/ca.pem"}) {
    EXPECT_THAT(of_worker, Contains(path));
  }
  EXPECT_THAT(of_worker, Not(Contains("d/router-key.pem")));
  EXPECT_EQ(TlsAuthorityOf(spec), "d/ca.pem");
  EXPECT_EQ(TlsAuthorityOf({}), "");
}

}  // namespace
}  // namespace baleen::cli
