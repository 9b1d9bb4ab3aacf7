// NCCL as it is found at run time, on any machine: no GPU is needed.
#include "worker/expert_parallel/nccl/nccl_library.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>

#include "worker/expert_parallel/nccl/nccl_collectives.h"
#include "worker/expert_parallel/nccl/nccl_endpoint.h"

namespace baleen::worker {
namespace {

using testing::HasSubstr;

// This program is linked with the library of the headers; what is loaded is that one.
TEST(NcclLibrary, HasEveryCallThatWeMake) {
  const auto nccl = LoadNccl();
  ASSERT_TRUE(nccl.ok()) << nccl.status();
  EXPECT_EQ((*nccl)->version, NCCL_VERSION_CODE);
  int linked = 0;
  EXPECT_EQ(ncclGetVersion(&linked), ncclSuccess);
  EXPECT_EQ((*nccl)->version, linked);
  EXPECT_EQ((*nccl)->send, &ncclSend);
  EXPECT_EQ((*nccl)->receive, &ncclRecv);
  EXPECT_EQ((*nccl)->comm_init_rank_config, &ncclCommInitRankConfig);
  EXPECT_STREQ((*nccl)->get_error_string(ncclRemoteError), ncclGetErrorString(ncclRemoteError));
}

TEST(NcclLibrary, MakesAnIdForEachGroup) {
  const auto one = MakeNcclId();
  const auto other = MakeNcclId();
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(one->size(), std::size_t{NCCL_UNIQUE_ID_BYTES});
  EXPECT_NE(*one, *other);
}

TEST(NcclCollectives, RefusesWhatIsNoIdOfAGroup) {
  const auto joined = NcclCollectives::Join({.id = "short"});
  EXPECT_EQ(joined.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(joined.status().ToString(), HasSubstr("the id of a group has 5 bytes, not 128"));
}

TEST(NcclCollectives, NamesAGpuThatIsNotThere) {
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) != cudaSuccess) cudaGetLastError();
  const auto joined = NcclCollectives::Join({.id = std::string(NCCL_UNIQUE_ID_BYTES, '\0'),
                                             .device = gpus,
                                             .buffer_bytes = 256,
                                             .rows_copied_max = 1});
  EXPECT_EQ(joined.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(joined.status().ToString(), HasSubstr(testing::PrintToString(gpus)));
  EXPECT_THAT(joined.status().ToString(), HasSubstr("CUDA: GPU "));
}

}  // namespace
}  // namespace baleen::worker
