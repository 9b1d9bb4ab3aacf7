"""The HTTP port as the official openai client, grpcio and curl see it.

usage: python tests/clients/openai_test.py FOLDER_OF_BINARIES   (from the root of the repository)
"""
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest

import grpc
import openai
import pydantic
from grpc_tools import protoc

sys.path.insert(0, os.path.dirname(__file__))
from cluster import Cluster  # noqa: E402

BINARIES = sys.argv.pop(1) if len(sys.argv) > 1 else "build/release/bin"
QUESTION = [{"role": "user", "content": "What is 347 + 589?"}]
GREEDY = {"model": "nano", "temperature": 0}


def setUpModule():
    global cluster, client, pb, stub
    cluster = Cluster(BINARIES, "--prefill", "1", "--decode", "1")
    client = openai.OpenAI(base_url=f"http://{cluster.http}/v1", api_key="none", max_retries=0,
                           timeout=120)
    generated = tempfile.mkdtemp()
    assert protoc.main(["protoc", "-I.", f"--python_out={generated}",
                        f"--grpc_python_out={generated}", "proto/baleen/v1/inference.proto"]) == 0
    sys.path.insert(0, generated)
    from proto.baleen.v1 import inference_pb2, inference_pb2_grpc
    pb = inference_pb2
    stub = inference_pb2_grpc.InferenceStub(grpc.insecure_channel(cluster.grpc))


def tearDownModule():
    client.close()
    cluster.stop()


def curl(*arguments):
    return subprocess.run(["curl", "-sS", "-m", "60", *arguments], capture_output=True,
                          check=False).stdout.decode()


class Chat(unittest.TestCase):
    def test_answers_with_its_reasoning_and_usage(self):
        answer = client.chat.completions.create(messages=QUESTION, **GREEDY)
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.model, "nano")
        self.assertTrue(answer.system_fingerprint.startswith("fp_"))
        choice = answer.choices[0]
        self.assertIn("936", choice.message.content)
        self.assertIn("347+589", choice.message.reasoning_content)
        self.assertEqual(choice.finish_reason, "stop")
        usage = answer.usage
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        self.assertGreater(usage.completion_tokens_details.reasoning_tokens, 10)

    def test_streams_what_it_answers_whole(self):
        whole = client.chat.completions.create(messages=QUESTION, **GREEDY)
        content, reasoning, finish, usage, role = "", "", None, None, None
        for chunk in client.chat.completions.create(messages=QUESTION, stream=True,
                                                    stream_options={"include_usage": True},
                                                    **GREEDY):
            self.assertEqual(chunk.object, "chat.completion.chunk")
            if not chunk.choices:
                usage = chunk.usage
                continue
            self.assertIsNone(usage, "usage comes last")
            delta = chunk.choices[0].delta
            role = role or delta.role
            content += delta.content or ""
            reasoning += getattr(delta, "reasoning_content", None) or ""
            finish = finish or chunk.choices[0].finish_reason
        self.assertEqual(role, "assistant")
        self.assertEqual(content, whole.choices[0].message.content)
        self.assertEqual(reasoning, whole.choices[0].message.reasoning_content)
        self.assertEqual(finish, "stop")
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)

    def test_equals_what_grpc_answers(self):
        request = pb.ChatRequest(
            model="nano", messages=[pb.Message(**QUESTION[0])],
            sampling=pb.SamplingParams(temperature=0.8, top_p=0.9, seed=7))
        chunks = list(stub.Chat(request, timeout=120))
        answer = client.chat.completions.create(messages=QUESTION, model="nano", temperature=0.8,
                                                top_p=0.9, seed=7)
        self.assertEqual(answer.choices[0].message.content, "".join(c.delta for c in chunks))
        self.assertEqual(answer.choices[0].message.reasoning_content,
                         "".join(c.reasoning_delta for c in chunks))
        self.assertEqual(answer.usage.completion_tokens, chunks[-1].usage.completion_tokens)
        self.assertEqual(answer.baleen["seed"], 7)

    def test_gives_several_choices(self):
        ask = dict(messages=QUESTION, model="nano", temperature=1.5, seed=3, max_tokens=20)
        whole = client.chat.completions.create(n=3, **ask)
        self.assertEqual([c.index for c in whole.choices], [0, 1, 2])
        texts = ["", "", ""]
        for chunk in client.chat.completions.create(n=3, stream=True, **ask):
            choice = chunk.choices[0]
            texts[choice.index] += getattr(choice.delta, "reasoning_content", None) or ""
            texts[choice.index] += choice.delta.content or ""
        for choice in whole.choices:
            said = (choice.message.reasoning_content or "") + choice.message.content
            self.assertEqual(texts[choice.index], said)

    def test_stops_at_a_text_and_at_a_length(self):
        answer = client.chat.completions.create(messages=QUESTION, stop="36", **GREEDY)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertNotIn("36", answer.choices[0].message.content)
        answer = client.chat.completions.create(messages=QUESTION, max_completion_tokens=5,
                                                **GREEDY)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 5)

    def test_gives_logprobs(self):
        answer = client.chat.completions.create(messages=QUESTION, logprobs=True, top_logprobs=3,
                                                max_tokens=4, **GREEDY)
        content = answer.choices[0].logprobs.content
        self.assertEqual(len(content), 4)
        for token in content:
            self.assertLessEqual(token.logprob, 0)
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertEqual(token.top_logprobs[0].token, token.token, "greedy")
            self.assertEqual(bytes(token.bytes).decode(errors="replace"), token.token)

    def test_keeps_to_a_schema(self):
        class Sum(pydantic.BaseModel):
            left: int
            right: int

        answer = client.chat.completions.parse(messages=QUESTION, response_format=Sum,
                                               max_tokens=600, **GREEDY)
        if answer.choices[0].finish_reason == "stop":
            self.assertIsInstance(answer.choices[0].message.parsed, Sum)

    def test_a_client_that_goes_cancels(self):
        series = 'baleen_router_requests_total{outcome="cancelled"}'
        before = cluster.metric(series)
        stream = client.chat.completions.create(messages=QUESTION, stream=True, model="nano",
                                                max_tokens=4000,
                                                extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        for _ in range(100):
            if cluster.metric(series) > before:
                break
            time.sleep(0.1)
        self.assertGreater(cluster.metric(series), before)


class Completions(unittest.TestCase):
    def test_continues_a_text_and_token_ids(self):
        tokens = json.loads(curl(f"http://{cluster.http}/tokenize", "-H",
                                 "Content-Type: application/json", "-d",
                                 '{"prompt": "What is 2 + 2?"}'))
        self.assertEqual(tokens["count"], len(tokens["tokens"]))
        by_text = client.completions.create(prompt="What is 2 + 2?", max_tokens=6, **GREEDY)
        by_ids = client.completions.create(prompt=tokens["tokens"], max_tokens=6, **GREEDY)
        self.assertEqual(by_text.object, "text_completion")
        self.assertEqual(by_text.choices[0].text, by_ids.choices[0].text)
        self.assertEqual(by_text.usage.completion_tokens, 6)
        default = client.completions.create(prompt="What is", extra_body={"ignore_eos": True},
                                            **GREEDY)
        self.assertEqual(default.usage.completion_tokens, 16, "OpenAI's default")

    def test_gives_logprobs(self):
        answer = client.completions.create(prompt="What is", logprobs=2, max_tokens=3, **GREEDY)
        logprobs = answer.choices[0].logprobs
        self.assertEqual(len(logprobs.tokens), answer.usage.completion_tokens)
        self.assertEqual(len(logprobs.top_logprobs[0]), 2)
        self.assertEqual(logprobs.text_offset[0], 0)


class Errors(unittest.TestCase):
    def test_are_those_that_the_client_knows(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            client.chat.completions.create(messages=QUESTION, model="nano", temperature=3)
        self.assertEqual(caught.exception.code, "invalid_request")
        with self.assertRaises(openai.BadRequestError) as caught:
            client.chat.completions.create(messages=QUESTION, model="nano",
                                           extra_body={"temprature": 1})
        self.assertEqual(caught.exception.param, "temprature")
        with self.assertRaises(openai.NotFoundError) as caught:
            client.chat.completions.create(messages=QUESTION, model="other")
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError):
            client.chat.completions.create(messages=QUESTION, model="nano", n=2147483648)

    def test_lists_models(self):
        models = client.models.list().data
        self.assertEqual([m.id for m in models], ["nano"])
        self.assertTrue(models[0].ready)
        self.assertEqual(client.models.retrieve("nano").id, "nano")
        with self.assertRaises(openai.NotFoundError):
            client.models.retrieve("other")


class Curl(unittest.TestCase):
    def test_sees_events_and_their_end(self):
        text = curl("-N", "-i", f"http://{cluster.http}/v1/chat/completions", "-H",
                    "Content-Type: application/json", "-H", "x-baleen-debug: route", "-d",
                    json.dumps({"messages": QUESTION, "stream": True, "max_tokens": 5}))
        head, _, body = text.partition("\r\n\r\n")
        self.assertIn("200 OK", head)
        self.assertIn("text/event-stream", head)
        self.assertIn("x-request-id: ", head)
        events = [line for line in body.splitlines() if line]
        self.assertTrue(all(line.startswith("data: ") for line in events))
        self.assertEqual(events[-1], "data: [DONE]")
        for line in events[:-1]:
            json.loads(line[6:])

    def test_health_and_what_is_not_there(self):
        self.assertEqual(curl(f"http://{cluster.http}/healthz"), "ok\n")
        self.assertEqual(curl(f"http://{cluster.http}/readyz"), "ready\n")
        self.assertIn("200 OK", curl("-I", f"http://{cluster.http}/healthz"))
        self.assertIn("404 Not Found", curl("-i", f"http://{cluster.http}/v2"))
        answer = curl("-i", "-X", "DELETE", f"http://{cluster.http}/v1/models")
        self.assertIn("405 Method Not Allowed", answer)
        self.assertIn("Allow: GET", answer)
        self.assertIn("415 ", curl("-i", f"http://{cluster.http}/tokenize", "-d", "a=b"))
        self.assertIn("413 ", curl("-i", f"http://{cluster.http}/tokenize", "-H",
                                   "Content-Type: application/json", "-H", "Expect:",
                                   "--data-binary", "@/proc/self/exe", "-H",
                                   "Content-Length: 100000000"))


if __name__ == "__main__":
    unittest.main()
