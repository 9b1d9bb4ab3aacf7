"""The dependency direction of ARCHITECTURE.md, proven from the #includes.

Every folder lists the folders it may include (besides itself); every third-party package lists its homes. What is not listed is refused.
"""
import tree

L0 = ["proto", "observability/base", "observability/metrics", "observability/process",
      "kernels/include", "text/grammar", "security"]

MAY_INCLUDE = {
    "proto/contract": ["observability/base"],
    "observability/base": [],
    "observability/metrics": ["observability/base"],
    "observability/process": ["observability/base"],
    "security": ["observability/base", "proto/contract", "security"],
    "security/authorization": ["observability/base", "proto/contract", "security"],
    "security/certificates": ["observability/base", "security/files"],
    "security/files": ["observability/base"],
    "security/grpc": ["observability/base", "proto/contract", "security"],
    "security/issuing": ["observability/base", "security/certificates"],
    "kernels/include": [],
    "text/crate": [],
    "text/grammar": ["proto/contract", "observability/base", "text/crate"],
    "kernels/reference": ["kernels/include"],
    "kernels/cuda": [],
    "kernels/bench": ["kernels/include", "kernels/reference"],
    "worker/cache": ["proto/contract", "observability/base", "worker/model"],
    "worker/cache/bench": ["worker/cache", "proto/contract", "observability/base"],
    "worker/scheduler": ["proto/contract", "observability/base", "worker/model"],
    "worker/device": ["kernels", "observability/base"],
    "worker/model/format": ["observability/base"],
    "worker/model/forward": ["kernels", "proto/contract", "observability/base", "worker/device",
                            "worker/model", "worker/expert_parallel"],
    "worker/model/experts": ["kernels", "observability/base", "worker/device", "worker/model",
                            "worker/expert_parallel"],
    "worker/model/bench": ["observability/base", "worker/device", "worker/model",
                           "worker/expert_parallel"],
    "worker/model/loading": ["proto/contract", "observability/base", "worker/model"],
    "worker/model": ["kernels", "proto/contract", "observability/base", "worker/device",
                    "worker/expert_parallel"],
    "worker/ucx": ["observability/base"],
    "worker/kv_transfer": ["proto/contract", "observability/base", "worker/ucx"],
    "worker/kv_transfer/protocol": ["worker/kv_transfer", "proto/contract", "observability/base"],
    "worker/kv_transfer/bench": ["worker/kv_transfer", "proto/contract", "observability/base"],
    "worker/expert_parallel": ["proto/contract", "observability/base"],
    "worker/expert_parallel/ucx": ["worker/expert_parallel", "worker/ucx", "observability/base"],
    "worker/expert_parallel/ucx/wire": ["worker/expert_parallel", "observability/base"],
    "worker/expert_parallel/bench": ["worker/expert_parallel", "observability/base"],
    "worker/expert_parallel/nccl": ["worker/expert_parallel", "kernels/cuda", "observability/base"],
    "worker/grammar": ["text/grammar", "proto/contract", "observability/base", "worker/model"],
    "worker/grammar/bench": ["worker/grammar", "worker/model", "worker/device", "text/grammar", "observability/base"],
    "worker/engine": L0 + ["worker/cache", "worker/grammar", "worker/scheduler", "worker/model", "worker/kv_transfer",
                           "worker/expert_parallel"],
    "worker/engine/lockstep": ["worker/engine", "worker/model", "worker/expert_parallel",
                               "observability/base", "observability/metrics"],
    "worker/engine/rules": ["worker/engine", "worker/model", "proto/contract", "observability/base"],
    "worker/attach": L0 + ["worker/cache", "worker/engine", "worker/model"],
    "worker/group/runtime": L0 + ["worker/group", "worker/engine", "worker/model",
                                  "worker/expert_parallel"],
    "worker/group": L0 + ["worker/attach", "worker/expert_parallel"],
    "worker/group/rules": ["worker/group", "worker/expert_parallel", "worker/model/format",
                           "observability/base"],
    "worker": L0 + ["worker"],  # main.cc wires
    "router/text/bench": ["router/text", "observability/base"],
    "router/text/reply": ["proto/contract", "observability/base", "router/text"],
    "router/text/encoding": ["observability/base"],
    "router/text": ["proto/contract", "observability/base", "text"],
    "router/policy": ["proto/contract", "observability/base"],
    "router/policy/score": ["router/policy", "proto/contract"],
    "router/policy/prefix": ["proto/contract", "observability/base"],
    "router/access": ["proto/contract", "observability/base", "security/files"],
    "router/admission": ["proto/contract", "observability/base"],
    "router/dispatch": L0 + ["router/policy", "router/admission"],
    "router/dispatch/bench": ["router/dispatch", "router/policy", "router/admission",
                              "proto/contract", "observability/base"],
    "router/cluster": L0 + ["router/policy", "router/dispatch"],
    "router/server": L0 + ["router/access", "router/policy", "router/admission", "router/dispatch", "router/cluster",
                           "router/text"],
    "router/server/generation": L0 + ["router/access", "router/policy", "router/admission", "router/dispatch",
                                      "router/text", "router/server/request"],
    "router/server/http": ["observability/base"],
    "router/server/http/message": ["observability/base"],
    "router/server/openai/json": ["proto/contract", "observability/base", "router/text"],
    "router/server/openai/request": ["proto/contract", "observability/base", "router/server/openai/json"],
    "router/server/openai/reply": ["proto/contract", "observability/base", "router/text",
                                   "router/server/generation", "router/server/http",
                                   "router/server/openai"],
    "router/server/openai/bench": ["observability/base", "router/server/http",
                                   "router/server/openai"],
    "router/server/openai/edge": L0 + ["router/server", "router/text", "router/dispatch",
                                       "router/policy"],
    "router/server/request": L0 + ["text/grammar", "router/access", "router/policy", "router/dispatch", "router/cluster", "router/text"],
    "router": L0 + ["router"],  # main.cc wires
    "tools/cli": L0,
    "tools/cli/cluster": ["observability/base"],
    "tools/cli/cluster/spec": ["observability/base"],
    "tools/cli/terminal": ["observability/base", "observability/process", "tools/cli/cluster"],
    "tools/cli/client": L0 + ["router/text", "tools/cli/cluster"],
    "tools/cli/doctor": L0 + ["worker", "router/text", "tools/cli/cluster", "tools/cli/terminal"],
    # Placements as the leaders of groups know them.
    "tools/cli/placement": L0 + ["worker/group", "worker/expert_parallel", "worker/model/format",
                                 "tools/cli/terminal", "tools/cli/cluster"],
    # generate --model: a request in one process, read as a router reads it and run as a worker runs it.
    "tools/cli/session": L0 + ["worker", "router/text", "router/server", "router/policy", "tools/cli"],
    "tools/cli/access": L0 + ["router/access", "tools/cli"],
    "tools/cli/commands": L0 + ["worker", "router/access", "tools/cli"],
}

# Package -> (what its includes start with, the folders that may use it).
GRPC_HOMES = ["security/grpc", "router/server", "router/cluster", "worker/attach", "worker/group", "tools/cli",
              "worker/main.cc", "router/main.cc"]
THIRD_PARTY = {
    "gRPC": (("grpcpp/", "grpc/", "proto/baleen/v1/inference.grpc", "proto/baleen/v1/worker.grpc",
              "proto/baleen/v1/group.grpc"),
             GRPC_HOMES),
    "Protobuf": (("google/protobuf/", "proto/baleen/v1/"), GRPC_HOMES + ["router/dispatch"]),
    "UCX": (("ucp/", "ucs/", "uct/"), ["worker/ucx", "worker/kv_transfer",
                                       "worker/expert_parallel"]),
    "MPI": (("mpi.h",), ["worker/expert_parallel/bench"]),
    "NCCL": (("nccl",), ["worker/expert_parallel"]),
    # The exchange over NCCL takes streams, events and memory from CUDA, and no kernels.
    "CUDA": (("cuda",), ["kernels/cuda", "worker/device", "worker/expert_parallel/nccl"]),
    "prometheus-cpp": (("prometheus/",), ["observability/metrics"]),
    "spdlog": (("spdlog/",), ["observability/base"]),
    "the text crate": (("text/crate/",), ["router/text", "text"]),
    "Boost": (("boost/",), ["router/server/http"]),
    "nlohmann-json": (("nlohmann/",), ["worker/model", "worker/group", "router/text", "router/access", "text/grammar", "tools/cli", "router/main.cc",
                                       "worker/main.cc"]),
    "CLI11": (("CLI/",), ["tools/cli", "observability/process", "router/options.cc",
                          "worker/options.cc"]),
    "OpenSSL": (("openssl/",), ["router/server/http", "proto/contract", "worker/model", "security", "router/access"]),
    "abseil": (("absl/",), ["proto", "observability", "security", "text", "worker", "router", "tools"]),
}


def folder_of(path):
    return path.rsplit("/", 1)[0]


def allowed(folder, target):
    if folder == target or target.startswith(folder + "/") and folder.count("/"):
        return True
    return any(target == a or target.startswith(a + "/") for a in MAY_INCLUDE.get(folder, []))


def check():
    for path in tree.cxx():
        if path.startswith("tests/"):
            continue
        folder = folder_of(path)
        if folder not in MAY_INCLUDE:
            yield f"{path}:1: folder {folder} is not in MAY_INCLUDE of tests/tidy/include_rules.py"
            continue
        for number, target, quoted in tree.includes(path):
            where = f"{path}:{number}: includes {target}"
            for package, (prefixes, homes) in THIRD_PARTY.items():
                if target.startswith(prefixes) and not path.startswith(tuple(homes)):
                    yield f"{where}: {package} has its home in {', '.join(homes)}"
            if not quoted:
                continue
            top = target.split("/", 1)[0]
            if top == "tests":
                yield f"{where}: nothing includes tests"
            elif top in ("proto", "observability", "security", "kernels", "text", "worker", "router", "tools"):
                if target.startswith("proto/baleen/v1/"):
                    continue  # generated messages: governed by their homes above
                if not allowed(folder, folder_of(target)):
                    yield f"{where}: {folder} may include only {MAY_INCLUDE[folder]}"
            elif "/" not in target:
                yield f"{where}: includes are written from the repository root"


def self_test():
    """The rules refuse what they are there to refuse."""
    assert not allowed("router/dispatch", "worker/engine")
    assert not allowed("worker/engine", "router/policy")
    assert not allowed("kernels/reference", "observability/base")
    assert not allowed("proto/contract", "worker/model")
    assert allowed("worker/model", "kernels/include")
    assert allowed("worker/engine", "worker/engine")
