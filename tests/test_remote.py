"""Embedding over an OpenAI-compatible API: a local stand-in with faults."""

import asyncio
import gc
import json
import logging
import math
import threading
import time
import traceback
from base64 import b64encode
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import numpy as np
import pytest

from akidb_mlx.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ModelNotFoundError,
    ReentrantCallError,
    RemoteServiceError,
    ServiceClosedError,
    ServiceOverloadedError,
)
from akidb_mlx.quantized import quantize
from akidb_mlx.remote import Limits, OpenAIEmbedder, failures
from akidb_mlx.remote.batches import make_batches, share_tokens
from akidb_mlx.remote.failures import parse_retry_after
from akidb_mlx.settings import Settings
from tests.embeddings_api import DIMENSION, Reply, answer, refusal, running_api, vector
from tests.support import run_python, wait_until

pytest.importorskip("openai")
KEY = "sk-secret-0123456789abcdef"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(failures, "_FIRST_WAIT_S", 0.001)


@pytest.fixture(scope="module")
def server():
    with running_api() as server:
        yield server


@pytest.fixture
def api(server):
    server.respond, server.most_running = answer, 0
    server.requests.clear()
    return server


@pytest.fixture
def embedder(api):
    with OpenAIEmbedder("openai:m", base_url=api.url, api_key=KEY, prompts={"query": "Q: "}) as embedder:
        api.requests.clear()
        yield embedder


def expected(*texts, size=DIMENSION):
    return np.stack([vector(text, size) for text in texts])


# Answers


def test_vectors_are_those_of_the_api_to_the_bit(embedder, api):
    batch = embedder.embed_detailed(["a b", "c", "d e f"])
    assert np.array_equal(batch.vectors, expected("a b", "c", "d e f"))
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.flags.c_contiguous
    assert sum(batch.token_counts) == 6
    assert batch.truncated == [False] * 3
    assert (batch.model, batch.dimension) == ("openai:m", DIMENSION)
    (request,) = api.requests
    assert request.path == "/v1/embeddings"
    assert request.body == {"model": "m", "input": ["a b", "c", "d e f"], "encoding_format": "base64"}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    many = [f"text {number}" for number in range(300)]  # some would change if they were normalised again
    assert np.array_equal(embedder.embed_array(many), expected(*many))
    assert embedder.embed(["c"]) == expected("c").tolist()
    assert embedder.embed_bytes(["c"]) == expected("c").tobytes()


def test_no_texts_need_no_request(embedder, api):
    assert embedder.embed([]) == []
    assert embedder.embed_array([]).shape == (0, DIMENSION)
    assert not api.requests


def test_numbers_are_read_like_base64_and_long_vectors_are_normalised(embedder, api):
    def numbers(request):
        data = [{"index": index, "embedding": (3 * vector(text)).tolist()} for index, text in enumerate(request.texts)]
        return answer(request, data=data)

    api.respond = numbers
    assert np.abs(embedder.embed_array(["a", "b"]) - expected("a", "b")).max() < 1e-7


def test_indexes_come_in_any_order(embedder, api):
    api.respond = lambda request: answer(request, data=answer(request)["data"][::-1])
    assert np.array_equal(embedder.embed_array(["a", "b", "c"]), expected("a", "b", "c"))


def _entry(values, index=0):
    return {"index": index, "embedding": values}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "0 vectors for 1 texts"),
        ([_entry([1.0] * 8), _entry([1.0] * 8, 1)], "2 vectors for 1 texts"),
        ([_entry([1.0] * 8, 1)], "index 1"),
        ([_entry([1.0] * 8, None)], "index None"),
        ([_entry([1.0] * 8, True)], "index True"),
        ([_entry([1.0] * 7)], "7 values where 8"),
        ([_entry([])], "0 values where 8"),
        ([_entry([math.nan] * 8)], "not finite"),
        ([_entry([1e300] * 8)], "not finite"),
        ([_entry([0.0] * 8)], "no length"),
        ([_entry(["1.0"] * 8)], "must be numbers or base64"),
        ([_entry([True] * 8)], "must be numbers or base64"),
        ([_entry([10**400] * 8)], "cannot be read"),
        ([_entry("?" * 8)], "cannot be read"),
        ([_entry(b64encode(b"abc").decode())], "cannot be read"),
        ([_entry(None)], "must be numbers or base64"),
        ([7], "index None"),
        ({}, "no list 'data'"),
    ],
    ids=repr,
)
def test_an_answer_that_is_wrong_is_refused(embedder, api, data, words):
    api.respond = lambda request: answer(request, data=data)
    with pytest.raises(InferenceError, match=words):
        embedder.embed(["a"])
    assert len(api.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"1", b"[" * 50_000, b"\xff"], ids=repr)
def test_a_body_that_is_no_answer_is_refused(embedder, api, body):
    api.respond = lambda _request: Reply(body)
    with pytest.raises(InferenceError, match="base_url"):
        embedder.embed(["a"])


def test_a_wrong_vector_is_named_by_its_text_in_the_call(api):
    def respond(request):
        entries = answer(request)["data"]
        for entry, text in zip(entries, request.texts, strict=True):
            if text == "bad":
                entry["embedding"] = [math.nan] * 8
            if text == "short":
                entry["embedding"] = [1.0] * 3
        return answer(request, data=entries)

    api.respond = respond
    with OpenAIEmbedder("m", base_url=api.url, limits=Limits(max_texts=2)) as embedder:
        for text in ("bad", "short"):
            with pytest.raises(InferenceError, match="text 3 ") as caught:
                embedder.embed(["a", "b", "c", text, "e"])
            assert caught.value.index == 3


def test_another_models_vectors_are_refused(embedder, api):
    api.respond = lambda request: answer(request, model="m-v2")
    with pytest.raises(InferenceError, match="'m-v2', and before with 'm'"):
        embedder.embed(["a"])


# Options


def test_dimensions_are_the_apis(embedder, api):
    assert np.array_equal(embedder.embed_array(["a"], dimensions=3), expected("a", size=3))
    assert api.requests[-1].body["dimensions"] == 3
    embedder.embed(["a"], dimensions=DIMENSION)
    assert "dimensions" not in api.requests[-1].body
    with pytest.raises(InvalidInputError, match="from 1 to 8"):
        embedder.embed(["a"], dimensions=9)
    with OpenAIEmbedder("m", base_url=api.url, dimensions=4) as short:
        assert (short.dimension, short.get_model_info()["native_dimension"]) == (4, DIMENSION)
        assert np.array_equal(short.embed_array(["a"]), expected("a", size=4))
        assert np.array_equal(short.embed_array(["a"], dimensions=8), expected("a"))


def test_an_api_that_ignores_dimensions_is_refused(api):
    def ignore(request):
        request.body.pop("dimensions", None)
        return answer(request)

    api.respond = ignore
    with pytest.raises(InferenceError, match="8 values where 4 are expected; an API that ignores `dimensions`"):
        OpenAIEmbedder("m", base_url=api.url, dimensions=4)
    with pytest.raises(ConfigurationError, match="AKIDB_DIMENSIONS"):
        OpenAIEmbedder("m", base_url=api.url, settings=Settings(dimensions=99))


def test_prompts_and_types_are_applied_here(embedder, api):
    assert np.array_equal(embedder.embed_array(["a"], input_type="query"), expected("Q: a"))
    assert np.array_equal(embedder.embed_array(["a"], input_type="document"), expected("a"))
    assert np.array_equal(embedder.embed_array(["a"], prompt="P: "), expected("P: a"))
    vectors = embedder.embed_array(["a"])
    for dtype in ("float16", "binary", "ubinary"):
        assert np.array_equal(embedder.embed_array(["a"], output_dtype=dtype), quantize(vectors, dtype, None))
    assert all(set(request.body) == {"model", "input", "encoding_format"} for request in api.requests)


@pytest.mark.parametrize(
    "options", [{"on_overflow": "chunk"}, {"on_overflow": "error"}, {"normalize": False}, {"input_type": "poem"}]
)
def test_an_option_that_cannot_be_honoured_is_refused_by_name(embedder, api, options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        embedder.embed(["a"], **options)
    with pytest.raises(TypeError, match="colour"):
        embedder.embed(["a"], colour=1)
    assert not api.requests


def test_prompts_that_are_not_known_are_asked_for(api):
    with (
        OpenAIEmbedder("m", base_url=api.url) as embedder,
        pytest.raises(InvalidInputError, match="prompts=\\{\\} where"),
    ):
        embedder.embed(["a"], input_type="query")
    with OpenAIEmbedder("text-embedding-3-small", base_url=api.url) as embedder:
        assert np.array_equal(embedder.embed_array(["a"], input_type="query"), expected("a"))


@pytest.mark.parametrize("texts", ["a", [1], ["a", None], ["\ud800"], {"a": 1}, None], ids=repr)
def test_what_is_no_text_is_refused_here(embedder, api, texts):
    with pytest.raises(InvalidInputError):
        embedder.embed(texts)
    assert not api.requests


# Requests


def test_requests_keep_to_the_limits():
    texts = ["x" * 40] * 5 + ["y" * 400] + ["z"] * 3
    sizes = [11] * 5 + [101] + [1] * 3
    batches = list(make_batches(texts, sizes, Limits(max_texts=3, max_request_tokens=24)))
    assert [len(batch.texts) for batch in batches] == [2, 2, 1, 1, 3]
    assert [batch.first for batch in batches] == [0, 2, 4, 5, 6]
    assert [text for batch in batches for text in batch.texts] == texts
    with pytest.raises(InvalidInputError, match="max_texts"):
        Limits(max_texts=0)


def test_tokens_are_shared_without_loss():
    assert share_tokens(8, ["", "a" * 8, "a" * 12]) == [1, 3, 4]
    for total in range(40):
        shares = share_tokens(total, ["a" * size for size in (3, 0, 50, 7)])
        assert sum(shares) == total
        assert min(shares) >= 0


def test_many_requests_come_back_in_order_and_few_run_at_once(api):
    texts = [f"text {index}" for index in range(41)]
    api.respond = lambda request: (time.sleep(0.005), answer(request))[1]
    with OpenAIEmbedder("m", base_url=api.url, limits=Limits(max_texts=5), max_concurrent=2) as embedder:
        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(embedder.embed_array, [texts] * 4))
        wait_until(lambda: embedder.get_metrics()["calls"]["completed"] == 4)
        wait_until(lambda: embedder.get_metrics()["queue"] == {"requests": 0, "tokens": 0})
    assert all(np.array_equal(result, expected(*texts)) for result in results)
    assert api.most_running == 2
    assert all(len(request.texts) <= 5 for request in api.requests)


def test_one_call_may_have_all_the_requests_that_may_run(api):
    together = threading.Barrier(6)
    with OpenAIEmbedder("m", base_url=api.url, limits=Limits(max_texts=1), max_concurrent=6) as embedder:
        api.respond = lambda request: (together.wait(30), answer(request))[1]
        texts = [f"text {index}" for index in range(12)]
        assert np.array_equal(embedder.embed_array(texts), expected(*texts))


def test_a_text_that_is_too_long_is_refused_here(api):
    with OpenAIEmbedder("m", base_url=api.url, limits=Limits(max_text_tokens=10)) as embedder:
        with pytest.raises(InvalidInputError, match="text 1 has about 11 tokens") as caught:
            embedder.embed(["a", "b" * 40])
        assert caught.value.index == 1
        embedder.embed(["b" * 39])


def _refuse(*bad):
    return lambda request: refusal(400, "bad input") if set(bad) & set(request.texts) else answer(request)


@pytest.mark.parametrize("index", [0, 6, 12])
def test_the_text_that_the_api_refuses_is_found(embedder, api, index):
    texts = [f"t{number}" for number in range(13)]
    texts[index] = ""
    api.respond = _refuse("")
    with pytest.raises(InvalidInputError, match=f"text {index}: .*400: bad input") as caught:
        embedder.embed(texts)
    assert caught.value.index == index


def test_a_refused_text_fails_no_other_call(embedder, api):
    api.respond = _refuse("bad")
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(embedder.embed_array, [f"t{n}", "bad" if n == 3 else "good"]) for n in range(8)]
    assert [call.exception() is None for call in calls] == [n != 3 for n in range(8)]
    assert np.array_equal(calls[5].result(), expected("t5", "good"))


@pytest.mark.parametrize(
    "body",
    [
        {"error": "too bad"},
        {"error": {"message": "too bad"}},
        {"message": "too bad"},
        {"detail": "too bad"},
        b"too bad",
    ],
    ids=repr,
)
def test_a_refusal_is_read_in_the_shape_of_each_server(embedder, api, body):
    api.respond = lambda _request: Reply(body, 400)
    with pytest.raises(InvalidInputError, match="400: too bad"):
        embedder.embed(["a"])


def test_a_refusal_of_everything_blames_no_text(embedder, api):
    api.respond = lambda _request: refusal(422, "unknown field")
    with pytest.raises(InvalidInputError, match="unknown field") as caught:
        embedder.embed(["a", "b", "c"])
    assert caught.value.index is None
    assert len(api.requests) == 2


def test_a_limit_that_is_lower_than_told_is_found_by_halving(embedder, api):
    api.respond = lambda request: refusal(413) if len(request.texts) > 3 else answer(request)
    texts = [f"t{number}" for number in range(10)]
    assert np.array_equal(embedder.embed_array(texts), expected(*texts))


# Failures


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_passing_failure_is_tried_again(embedder, api, status):
    api.faults_first(refusal(status), refusal(status))
    assert np.array_equal(embedder.embed_array(["a"]), expected("a"))
    assert len(api.requests) == 3


def test_a_connection_that_is_reset_is_tried_again(embedder, api):
    api.faults_first(Reply(b"", reset=True))
    assert np.array_equal(embedder.embed_array(["a"]), expected("a"))
    assert embedder.health_check()["status"] == "ok"


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (refusal(401, "no"), ConfigurationError, "OPENAI_API_KEY"),
        (refusal(403, "no"), ConfigurationError, "refuses the key"),
        (refusal(404, "no"), ModelNotFoundError, "no model 'm'"),
        (refusal(429, "no", "insufficient_quota"), RemoteServiceError, "budget"),
        (refusal(402, "pay"), RemoteServiceError, "402: pay"),
        (refusal(501, "no"), RemoteServiceError, "501"),
        (Reply(b"", 307, {"location": "/elsewhere"}), ConfigurationError, "redirects"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_a_lasting_failure_is_not_tried_again(embedder, api, reply, kind, words):
    api.respond = lambda _request: reply
    with pytest.raises(kind, match=words):
        embedder.embed(["a"])
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refusal(500), RemoteServiceError),
        (refusal(429, retry_after="0"), ServiceOverloadedError),
        (Reply(b"", reset=True), RemoteServiceError),
    ],
)
def test_attempts_are_bounded(api, reply, kind):
    with OpenAIEmbedder("m", base_url=api.url, max_retries=2) as embedder:
        api.requests.clear()
        api.respond = lambda _request: reply
        with pytest.raises(kind):
            embedder.embed(["a"])
        assert len(api.requests) == 3
        assert embedder.health_check()["status"] == "degraded"
        wait_until(lambda: embedder.get_metrics()["calls"]["failed"] == 1)


def test_retry_after_is_waited_for(embedder, api):
    api.faults_first(refusal(429, retry_after="0.3"))
    embedder.embed(["a"])
    first, second = api.requests
    assert second.at - first.at >= 0.3


def test_retry_after_is_read_in_all_its_forms():
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(timezone.utc) - timedelta(seconds=30), usegmt=True)
    assert 28 <= parse_retry_after({"retry-after": soon}) <= 30
    assert parse_retry_after({"retry-after": past}) == 0
    assert parse_retry_after({"retry-after": "7"}) == 7
    assert parse_retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    for useless in ("", "soon", "nan", "inf", "-1", "Wed, 99 Nov 2026"):
        assert parse_retry_after({"retry-after": useless}) is None
    assert parse_retry_after({}) is None


@pytest.mark.parametrize("wait", ["30", format_datetime(datetime.now(timezone.utc) + timedelta(days=1), usegmt=True)])
def test_a_wait_past_the_deadline_is_not_begun(embedder, api, wait):
    api.respond = lambda _request: refusal(429, retry_after=wait)
    with pytest.raises(ServiceOverloadedError) as caught:
        embedder.embed(["a"], timeout=20)
    assert caught.value.retry_after_s > 20
    assert len(api.requests) == 1


def test_one_deadline_holds_for_all_requests_and_attempts(api):
    release = threading.Event()
    with OpenAIEmbedder("m", base_url=api.url, limits=Limits(max_texts=1)) as embedder:
        api.respond = lambda request: Reply(answer(request), after=release)
        with pytest.raises(DeadlineExceededError):
            embedder.embed(["a", "b", "c"], timeout=0.3)
        future = embedder.submit(["a"], timeout=0.2)
        assert isinstance(future.exception(30), DeadlineExceededError)
        wait_until(lambda: embedder.get_metrics()["calls"]["timed_out"] == 2)
        release.set()
        assert np.array_equal(embedder.embed_array(["a"]), expected("a"))


def test_an_attempt_without_an_answer_is_made_again(api):
    release = threading.Event()
    with OpenAIEmbedder("m", base_url=api.url, request_timeout_s=1) as embedder:
        api.faults_first(Reply(b"", after=release))
        assert np.array_equal(embedder.embed_array(["a"]), expected("a"))
        assert len(api.requests) >= 3  # with that of the constructor
        embedder._api.request_timeout_s = 0.05
        api.respond = lambda request: Reply(answer(request), after=release)
        with pytest.raises(RemoteServiceError, match=r"did not answer within 0\.05 s"):
            embedder.embed(["a"])
        release.set()


# Cancelling and closing


def test_cancelling_ends_the_requests(api):
    release, begun = threading.Event(), threading.Event()

    def hang(request):
        begun.set()
        return Reply(answer(request), after=release)

    with OpenAIEmbedder("m", base_url=api.url, max_concurrent=1) as embedder:
        api.respond = hang
        future = embedder.submit(["a"])
        assert begun.wait(30)
        assert future.cancel()
        api.respond = answer
        assert np.array_equal(embedder.embed_array(["b"]), expected("b"))  # its place is free
        with pytest.raises(CancelledError):
            future.result()
        assert embedder.get_metrics()["calls"]["cancelled"] == 1
        release.set()


def test_asyncio(embedder, api):
    release, begun = threading.Event(), threading.Event()

    async def work():
        vectors = await asyncio.gather(embedder.aembed(["a"]), embedder.aembed(["b"], dimensions=2))
        api.respond = lambda request: (begun.set(), Reply(answer(request), after=release))[1]
        task = asyncio.ensure_future(embedder.aembed(["c"]))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return vectors

    first, second = asyncio.run(work())
    release.set()
    assert np.array_equal(first, expected("a"))
    assert np.array_equal(second, expected("b", size=2))


def test_closing_fails_what_runs_and_draining_finishes_it(api):
    release, begun = threading.Event(), threading.Event()
    embedders = [OpenAIEmbedder("m", base_url=api.url) for _ in range(2)]
    api.respond = lambda request: (begun.set(), Reply(answer(request), after=release))[1]
    dropped, finished = (embedder.submit(["a"]) for embedder in embedders)
    assert begun.wait(30)
    embedders[0].close()
    assert isinstance(dropped.exception(0), ServiceClosedError)
    threading.Timer(0.1, release.set).start()
    embedders[1].close(drain=True)
    assert np.array_equal(finished.result(0).vectors, expected("a"))
    for embedder in embedders:
        embedder.close()
        with pytest.raises(ServiceClosedError):
            embedder.embed(["a"])
        assert embedder.health_check()["status"] == "failed"
        assert embedder.get_model_info()["status"] == "closed"


def test_an_embedder_that_is_collected_ends_its_thread(api):
    embedder = OpenAIEmbedder("m", base_url=api.url)
    loop = embedder._loop
    embedder.embed(["a"])
    del embedder
    wait_until(lambda: gc.collect() is not None and not loop.is_open)
    assert loop.join(60)


def test_a_call_in_a_callback_that_would_wait_is_refused(embedder):
    seen = []
    done = threading.Event()

    def call(_future):
        try:
            embedder.embed(["b"])
        except ReentrantCallError as error:
            seen.append(error)
        done.set()

    embedder.submit(["a"]).add_done_callback(call)
    assert done.wait(30)
    assert seen


def test_too_many_waiting_calls_are_refused(api):
    release = threading.Event()
    settings = Settings(max_queued_requests=2, max_queued_tokens=50)
    with OpenAIEmbedder("m", base_url=api.url, settings=settings) as embedder:
        api.respond = lambda request: Reply(answer(request), after=release)
        waiting = [embedder.submit(["x" * 100])]
        with pytest.raises(ServiceOverloadedError, match="1 calls of about 26 tokens"):
            embedder.submit(["x" * 100])
        waiting.append(embedder.submit(["a"]))
        with pytest.raises(ServiceOverloadedError):
            embedder.submit(["b"])
        assert embedder.get_metrics()["calls"]["refused"] == 2
        release.set()
        for future in waiting:
            future.result(30)


def test_a_forked_child_is_refused_and_a_process_ends_with_calls_open(server):
    server.respond = answer
    script = f"""
import os, sys, threading
from akidb_mlx.remote import OpenAIEmbedder
from akidb_mlx.runtime import process
embedder = OpenAIEmbedder("m", base_url={server.url!r})
child = os.fork()
if not child:
    try:
        embedder.embed(["a"])
    except Exception as error:
        print(type(error).__name__, process.is_forked(), embedder.health_check()["status"], flush=True)
    embedder.close()
    os._exit(0)
os.waitpid(child, 0)
print(len(embedder.embed(["a"])), flush=True)
"""
    done = run_python(script)
    assert done.stdout == "ServiceClosedError False failed\n1\n", done.stderr


# Names, addresses and keys


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/v1", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("host/v1", "http:// or https://"),
        ("http://", "http:// or https://"),
        ("http://host:port/v1", "cannot be read"),
        ("http://[::1/v1", "cannot be read"),
        (f"http://user:{KEY}@host/v1", "no user, password"),
        (f"http://host/v1?api-key={KEY}", "query"),
        (7, "must be a string"),
    ],
)
def test_an_address_that_is_not_usable_is_refused(url, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        OpenAIEmbedder("m", base_url=url)
    assert KEY not in shown(caught.value)


@pytest.mark.parametrize("name", ["", "openai:", " m", "a\nb", "m" * 201, None, "\ud800"], ids=repr)
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(InvalidInputError, match="model_name"):
        OpenAIEmbedder(name, base_url="http://127.0.0.1:9")


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_concurrent": 0},
        {"max_retries": -1},
        {"max_retries": True},
        {"request_timeout_s": 0},
        {"request_timeout_s": math.inf},
        {"prompts": "query"},
        {"prompts": {"query": 1}},
        {"dimensions": 0},
    ],
    ids=repr,
)
def test_an_argument_that_is_not_usable_is_refused(arguments):
    with pytest.raises(InvalidInputError, match=next(iter(arguments))):
        OpenAIEmbedder("m", base_url="http://127.0.0.1:9", **arguments)


def test_the_environment_names_address_and_key(api, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"{api.url}/")
    with OpenAIEmbedder("m") as embedder:
        assert embedder.get_model_info()["path"] == api.url
        assert "authorization" not in api.requests[-1].headers
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    with OpenAIEmbedder("m"):
        assert api.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    with OpenAIEmbedder("m", api_key="other"):
        assert api.requests[-1].headers["authorization"] == "Bearer other"
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY"):
        OpenAIEmbedder("m")


def shown(error):
    """Return everything that a traceback shows of an error, and of those that it came from."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__) + repr(error.__context__)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_the_key_is_shown_nowhere(api, caplog, status):
    caplog.set_level(logging.DEBUG)
    with OpenAIEmbedder("m", base_url=api.url, api_key=KEY, max_retries=0) as embedder:
        echo = f"Incorrect key: {KEY}, {KEY[:6]}***cdef of Bearer {KEY}"
        api.respond = lambda _request: refusal(status, echo)
        with pytest.raises(Exception, match="Incorrect key: …") as caught:
            embedder.embed(["a"])
        told = [shown(caught.value), repr(embedder), json.dumps(embedder.health_check()), caplog.text]
        told += [json.dumps(embedder.get_model_info()), json.dumps(embedder.get_metrics())]
    for text in told:
        assert KEY not in text
        assert "***" not in text


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it():
    for key in ("sk-secret\nX: y", "sk-secret \u00e9", "sk-secret two"):
        with pytest.raises(ConfigurationError, match="printable ASCII") as caught:
            OpenAIEmbedder("m", base_url="http://127.0.0.1:9", api_key=key)
        assert "secret" not in shown(caught.value)


def test_an_api_that_is_not_there():
    with running_api() as gone:
        url = gone.url
    with pytest.raises(RemoteServiceError, match="cannot be reached: ConnectError"):
        OpenAIEmbedder("m", base_url=url, api_key=KEY, max_retries=1)


def test_the_client_is_imported_late_and_the_missing_extra_is_named():
    done = run_python(
        "import sys, akidb_mlx.cli.embed\n"
        "from akidb_mlx.remote import OpenAIEmbedder\n"
        "print('openai' in sys.modules)\n"
        "sys.modules['openai'] = None\n"
        "OpenAIEmbedder('m', base_url='http://127.0.0.1:9')"
    )
    assert done.stdout == "False\n"
    assert "pip install 'akidb-mlx[openai]'" in done.stderr
    assert "ConfigurationError" in done.stderr
