#include "worker/kv_transfer/ucx_report.h"

#include <fmt/format.h>
#include <ucp/api/ucp.h>
#include <uct/api/uct.h>

#include <cstdlib>
#include <set>
#include <span>

#include "worker/ucx/ucx_log.h"

namespace baleen::worker {
namespace {

// Adds the transports of one memory domain. A domain that can not be opened (no such hardware) has
// none.
void AddTransports(uct_component_h component, const char* domain, std::set<std::string>& names) {
  uct_md_config_t* config = nullptr;
  if (uct_md_config_read(component, nullptr, nullptr, &config) != UCS_OK) return;
  uct_md_h md = nullptr;
  const ucs_status_t opened = uct_md_open(component, domain, config, &md);
  uct_config_release(config);
  if (opened != UCS_OK) return;
  uct_tl_resource_desc_t* resources = nullptr;
  unsigned count = 0;
  if (uct_md_query_tl_resources(md, &resources, &count) == UCS_OK) {
    for (const auto& resource : std::span(resources, count)) names.insert(resource.tl_name);
    uct_release_tl_resource_list(resources);
  }
  uct_md_close(md);
}

void AddTransports(uct_component_h component, std::set<std::string>& names) {
  uct_component_attr_t attributes{};
  attributes.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT;
  if (uct_component_query(component, &attributes) != UCS_OK) return;
  std::vector<uct_md_resource_desc_t> domains(attributes.md_resource_count);
  attributes.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
  attributes.md_resources = domains.data();
  if (uct_component_query(component, &attributes) != UCS_OK) return;
  for (const auto& domain : domains) AddTransports(component, domain.md_name, names);
}

}  // namespace

absl::StatusOr<UcxReport> ReportUcx() {
  TakeUcxLog();
  uct_component_h* components = nullptr;
  unsigned count = 0;
  const ucs_status_t status = uct_query_components(&components, &count);
  if (status != UCS_OK) {
    return absl::InternalError(
        fmt::format("UCX can not list its components: {}", ucs_status_string(status)));
  }
  std::set<std::string> names;
  for (const auto component : std::span(components, count)) AddTransports(component, names);
  uct_release_component_list(components);

  unsigned major = 0, minor = 0, release = 0;
  ucp_get_version(&major, &minor, &release);
  const char* chosen = std::getenv("UCX_TLS");
  return UcxReport{.version = fmt::format("{}.{}.{}", major, minor, release),
                   .transports = {names.begin(), names.end()},
                   .chosen = chosen == nullptr ? "" : chosen};
}

}  // namespace baleen::worker
