"""A real cluster of this build, for tests with clients that are not ours."""
import json
import os
import resource
import subprocess
import urllib.request


class Cluster:
    """`baleen up --json`, its addresses, and its end."""

    def __init__(self, binaries, *arguments):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.process = subprocess.Popen(
            [os.path.join(binaries, "baleen"), "up", "--json", "--die-with-parent",
             "--model", "models/nano", "--log-level", "warning", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line, "the cluster does not come up"
        self.ready = json.loads(line)
        self.http = self.ready["http"]
        self.grpc = self.ready["grpc"]

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()

    def metric(self, series):
        page = urllib.request.urlopen(
            f"http://{self.ready['router']['metrics']}/metrics", timeout=10).read().decode()
        for line in page.splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def router_kilobytes(self):
        with open(f"/proc/{self.ready['router']['pid']}/status", encoding="utf-8") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        return 0
