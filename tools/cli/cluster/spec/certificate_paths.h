// The files that `baleen certs` makes in a folder, and `baleen up --certs` gives to processes.
#pragma once

#include <string>
#include <string_view>

namespace baleen::cli {

inline constexpr std::string_view kAuthorityName = "ca";
inline constexpr std::string_view kPublicName = "public";  // of the router, for clients
inline constexpr std::string_view kRouterName = "router";  // of the cluster's inside, as the next
inline constexpr std::string_view kWorkerName = "worker";

inline std::string CertificatePath(std::string_view folder, std::string_view name) {
  return std::string(folder) + "/" + std::string(name) + ".pem";
}
inline std::string KeyPath(std::string_view folder, std::string_view name) {
  return std::string(folder) + "/" + std::string(name) + "-key.pem";
}

}  // namespace baleen::cli
