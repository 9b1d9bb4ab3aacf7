// The name of a model: routers and workers each have a directory, and must agree.
#pragma once

#include <string>

namespace baleen::contract {

// The last component of `directory`, as it is written: links are not followed, so that a link names
// what it leads to. "." and ".." are resolved. Empty for "/".
std::string ModelNameOf(const std::string& directory);

}  // namespace baleen::contract
