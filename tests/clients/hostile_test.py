"""What the HTTP port does with clients that mean no good, while another one's latency is watched.

usage: python tests/clients/hostile_test.py FOLDER_OF_BINARIES   (from the root of the repository)
"""
import json
import os
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from cluster import Cluster  # noqa: E402

BINARIES = sys.argv.pop(1) if len(sys.argv) > 1 else "build/release/bin"
# Sanitizers and a busy machine; what is looked for takes a hundred times as long or for ever.
PATIENCE_S = 30


def setUpModule():
    global cluster
    cluster = Cluster(BINARIES, "--mixed", "1")


def tearDownModule():
    cluster.stop()


def connect():
    host, port = cluster.http.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def read_all(connection):
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def post(body, path="/v1/chat/completions", fields=b""):
    return (b"POST " + path.encode() + b" HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
            + b"Connection: close\r\n" + fields
            + b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)


def ask(request):
    with connect() as connection:
        try:
            connection.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return read_all(connection)


class Watch:
    """Another client, which asks for something cheap all the time."""

    def __enter__(self):
        self.slowest = 0.0
        self.count = 0
        self.stopping = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        while not self.stopping:
            started = time.monotonic()
            answer = ask(post(json.dumps({"prompt": "a"}).encode(), "/tokenize"))
            assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.count += 1

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join()


class Hostile(unittest.TestCase):
    def refuse(self, request, start, part=b""):
        before = cluster.router_kilobytes()
        with Watch() as watch:
            answer = ask(request)
        self.assertTrue(answer.startswith(start), answer[:300])
        self.assertIn(part, answer)
        self.assertGreater(watch.count, 0)
        self.assertLess(watch.slowest, 5.0)
        self.assertLess(cluster.router_kilobytes() - before, 64 << 10)

    def test_a_body_of_100_megabytes(self):
        self.refuse(post(b"[" * 100_000_000), b"HTTP/1.1 413 ")
        chunk = b"10000\r\n" + b"[" * 65536 + b"\r\n"
        self.refuse(b"POST /tokenize HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                    + chunk * 1600, b"HTTP/1.1 413 ")

    def test_a_header_of_one_megabyte(self):
        self.refuse(b"GET /healthz HTTP/1.1\r\nHost: h\r\nA: " + b"a" * (1 << 20) + b"\r\n\r\n",
                    b"HTTP/1.1 431 ")

    def test_json_a_million_deep(self):
        self.refuse(post(b"[" * 1_000_000), b"HTTP/1.1 400 ", b"nested deeper than 64")
        self.refuse(post(b'{"a":' * 800_000), b"HTTP/1.1 400 ", b"nested deeper than 64")

    def test_many_values(self):
        self.refuse(post(b'{"prompt":[' + b"1," * 1_000_000 + b"1]}", "/v1/completions"),
                    b"HTTP/1.1 400 ", b"more than 200000 values")

    def test_texts_that_are_none(self):
        self.refuse(post(b'{"messages":[{"role":"user","content":"\xc3\x28"}]}'),
                    b"HTTP/1.1 400 ", b"not valid UTF-8")
        self.refuse(post(b'{"messages":[{"role":"user","content":"\\ud800"}]}'),
                    b"HTTP/1.1 400 ", b"not JSON")

    def test_numbers_beyond_all_bounds(self):
        for field in [b'"n":2147483648', b'"n":-1', b'"temperature":1e400', b'"temperature":NaN',
                      b'"top_p":-1', b'"max_tokens":1e300', b'"logit_bias":{"99999999999":1}',
                      b'"seed":1.5', b'"top_logprobs":1e9']:
            answer = ask(post(b'{"messages":[{"role":"user","content":"a"}],' + field + b"}"))
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), (field, answer[:300]))

    def test_what_is_no_http(self):
        self.refuse(b"\x16\x03\x01\x02\x00\x01\x00" + b"\x00" * 600, b"HTTP/1.1 400 ")
        self.refuse(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 505 ")
        self.refuse(os.urandom(1000) + b"\r\n\r\n", b"HTTP/1.1 4")

    def test_thousands_of_connections_that_ask_for_nothing(self):
        before = cluster.router_kilobytes()
        count = 2000
        held = []
        with Watch() as watch:
            for i in range(count):
                held.append(connect())
                if i % 2:
                    held[-1].sendall(b"POST /tokenize HTTP/1.1\r\nHost: h\r\n")
            asked = watch.count
            deadline = time.monotonic() + PATIENCE_S
            while watch.count < asked + 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            grown = cluster.router_kilobytes() - before
        self.assertGreaterEqual(watch.count, asked + 3)
        self.assertLess(watch.slowest, 5.0)
        self.assertLess(grown / count, 16, "kB a connection")
        for connection in held:
            connection.close()

    def test_streams_that_nobody_reads(self):
        body = json.dumps({"messages": [{"role": "user", "content": "What is 1 + 1?"}],
                           "stream": True, "max_tokens": 200}).encode()
        held = []
        with Watch() as watch:
            for _ in range(50):
                held.append(connect())
                held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                held[-1].sendall(post(body))
            asked = watch.count
            deadline = time.monotonic() + PATIENCE_S
            while watch.count < asked + 3 and time.monotonic() < deadline:
                time.sleep(0.01)
        self.assertGreaterEqual(watch.count, asked + 3)
        for connection in held:
            connection.close()
        deadline = time.monotonic() + PATIENCE_S
        while cluster.metric("baleen_router_requests_running") and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(cluster.metric("baleen_router_requests_running"), 0)


if __name__ == "__main__":
    unittest.main()
