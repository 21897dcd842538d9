"""Summaries by the chat completions of an API: a local stand-in with faults."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("openai")
pytest.importorskip("sentencex", reason="the extra `summarize` is not installed")

from akidb_mlx.cli.summarize import summarize
from akidb_mlx.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    RemoteServiceError,
    ServiceClosedError,
    ServiceOverloadedError,
)
from akidb_mlx.remote import failures
from akidb_mlx.settings import Settings
from akidb_mlx.summarization import Summarizer
from akidb_mlx.summarization.remote_model import RemoteFormat
from tests.embeddings_api import Reply, event, refusal, running_api, written
from tests.servers import running_server
from tests.support import wait_until

KEY = "sk-secret-0123456789abcdef"
TALK = [{"role": "Ada", "content": "It rains, 17 mm."}, "It does.", {"role": "Ben", "content": "Yes."}]


@pytest.fixture(scope="module")
def server():
    with running_api() as server:
        yield server


@pytest.fixture
def api(server, monkeypatch):
    for name in ("OPENAI_BASE_URL", "AKIDB_OPENAI_BASE_URL", "AKIDB_SUMMARY_MODEL", "AKIDB_SUMMARY_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(failures, "_FIRST_WAIT_S", 0.001)
    server.requests.clear()
    server.most_running = 0
    server.respond = lambda _request: written("It rains. Ben agrees.")
    return server


@pytest.fixture
def summarizer(api):
    with Summarizer("openai:m", base_url=api.url) as one:
        yield one


def faults_first(api, *faults):
    left = list(faults)
    api.respond = lambda _request: left.pop(0) if left else written("It rains. Ben agrees.")


def content(request):
    (message,) = request.body["messages"]
    assert message["role"] == "user"
    return message["content"]


def test_a_summary_is_what_the_api_writes(summarizer, api):
    assert not api.requests  # nothing is sent before the first call
    assert summarizer.summarize(TALK) == "It rains. Ben agrees."
    (request,) = api.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "\nAda: It rains, 17 mm.\nIt does.\nBen: Yes.\n</messages>" in content(request)
    fields = {name: value for name, value in request.body.items() if name != "messages"}
    assert fields == {"model": "m", "stream": True, "temperature": 0, "max_tokens": 4 * 120 + 32 + 1024}
    info = summarizer.get_model_info()
    assert (info["mode"], info["backend"], info["device"]) == ("abstractive", "openai", "remote")
    assert (info["model_name"], info["path"], info["context_tokens"]) == ("openai:m", api.url, 3072)
    assert summarizer.health_check() == {"status": "ok", "reason": "ready"}
    assert KEY not in repr(summarizer) + json.dumps(info)


def test_sentences_come_as_they_are_written_and_the_rest_is_not_waited_for(summarizer, api):
    going_on, gone = threading.Event(), threading.Event()

    def parts():
        yield event("First one. ") + event("Second")
        going_on.wait(30)
        yield event(" one. Third one is too long.")
        try:
            while True:  # until nobody reads
                yield event("More. ")
                time.sleep(0.001)
        finally:
            gone.set()

    api.respond = lambda _request: Reply(parts())
    pieces = summarizer.stream(TALK, max_words=4)
    assert next(pieces) == "First one."
    going_on.set()
    assert list(pieces) == [" Second one."]
    assert gone.wait(30)


def test_thoughts_and_words_beyond_the_bound_are_left_out(summarizer, api):
    api.respond = lambda _request: written("<think> It may be. </think> It rains. It is very wet indeed today.")
    assert summarizer.summarize(TALK, max_words=5) == "It rains."
    api.respond = lambda _request: written("It rains. And it goes on to", "length")
    assert summarizer.summarize(TALK) == "It rains."
    api.respond = lambda _request: written("<think> It goes on and on", "length")
    with pytest.raises(InferenceError, match="wrote no summary within 512 tokens"):
        summarizer.summarize(TALK)


def test_long_messages_are_read_window_by_window(api):
    api.respond = lambda _request: written("A part of it.")
    with Summarizer("openai:m", base_url=api.url, context_tokens=2000) as summarizer:
        sentences = [f"Remark {number} about the matter." for number in range(300)]
        assert summarizer.summarize([" ".join(sentences)], max_words=20) == "A part of it."
    shown = "\n".join(content(request) for request in api.requests)
    assert [one for one in sentences if one not in shown] == []
    assert len(api.requests) == 4  # three parts, and the summary of their summaries
    for request in api.requests:  # at three bytes a token, which is more than a tokenizer makes of it
        assert len(content(request).encode()) / 3 + request.body["max_tokens"] <= 2000


@pytest.mark.parametrize("text", ["word " * 500, "数学很有意思" * 200, "😀🏽é" * 300, "a"])
def test_texts_are_cut_between_characters(text):
    pieces = RemoteFormat().cut(text, 20)
    assert "".join(pieces) == text
    assert max(RemoteFormat().count(pieces)) <= 20


@pytest.mark.parametrize(
    "mark",
    [
        "<|im_end|>",
        "<|im_start|>system",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<end_of_turn>",
        "</s>",
        "[/INST]",
        "</think>",
    ],
)
def test_marks_of_templates_in_messages_are_broken_up(summarizer, api, mark):
    summarizer.summarize([f"It {mark} rains.", f"{mark}</messages>"])
    sent = content(api.requests[0])
    assert mark not in sent
    assert f"{mark[0]} {mark[1:]}" in sent
    assert sent.count("</messages>") == 2  # of the instruction


# Faults


@pytest.mark.parametrize(
    "fault",
    [
        refusal(429, "slow", retry_after="0.001"),
        refusal(500),
        refusal(503),
        Reply(b"", reset=True),
        Reply(b"", headers={"content-length": "0"}),
        Reply(event("") + b"data: {", headers={"content-length": "9999", "connection": "close"}),
        Reply(b'data: {"error": {"message": "out of memory"}}\n\n'),
        Reply(b": a comment\n\nevent: ping\n\n"),
    ],
    ids=["429", "500", "503", "reset", "empty", "cut", "error event", "comments"],
)
def test_an_attempt_that_failed_before_its_first_word_is_made_again(summarizer, api, fault):
    faults_first(api, fault)
    assert summarizer.summarize(TALK) == "It rains. Ben agrees."
    assert len(api.requests) == 2
    assert summarizer.health_check()["status"] == "ok"


def test_retry_after_is_waited_for(summarizer, api):
    faults_first(api, refusal(429, "slow", retry_after="0.2"))
    assert summarizer.summarize(TALK) == "It rains. Ben agrees."
    first, second = api.requests
    assert second.at - first.at >= 0.2


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (event("It rains. Ben "), RemoteServiceError, "before the model had"),
        (event("It rains. Ben ") + b'data: {"error": "gone"}\n\n', RemoteServiceError, "while it answered: gone"),
        (event("It rains. Ben ") + b"data: {nonsense\n\n", InferenceError, "not JSON"),
    ],
    ids=["cut", "error event", "garbage"],
)
def test_an_answer_that_ends_in_the_middle_is_an_error_and_is_not_begun_again(summarizer, api, body, error, words):
    api.respond = lambda _request: Reply(body)
    pieces = summarizer.stream(TALK)
    assert next(pieces) == "It rains."
    with pytest.raises(error, match=words):
        list(pieces)
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"7",
        b"{}",
        b'{"choices": 3}',
        b'{"choices": [3]}',
        b'{"choices": [{"delta": []}]}',
        b'{"choices": [{"delta": {"content": 3}}]}',
        b'{"choices": [{"delta": {}, "finish_reason": 3}]}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"NaN",
    ],
    ids=lambda data: str(data[:30]),
)
def test_an_event_of_wrong_types_is_an_error(summarizer, api, data):
    api.respond = lambda _request: Reply(b"data: " + data + b"\n\n")
    with pytest.raises(InferenceError, match="the API's answer has an event") as caught:
        summarizer.summarize(TALK)
    assert len(str(caught.value)) < 400
    assert len(api.requests) == 1


def test_an_answer_without_end_is_not_read(summarizer, api):
    api.respond = lambda _request: Reply(b"data: " + b" " * 5_000_000)
    with pytest.raises(InferenceError, match=f"more than {65536 + 2048 * (512 + 1024)} bytes"):
        summarizer.summarize(TALK)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (refusal(401, "bad key"), ConfigurationError),
        (refusal(400, "too long"), InvalidInputError),
        (refusal(429, "slow", retry_after="100"), ServiceOverloadedError),
        (refusal(500, f"Bearer {KEY} is wrong"), RemoteServiceError),
    ],
    ids=["401", "400", "429", "500"],
)
def test_a_failure_that_stays_is_an_error_without_the_key(summarizer, api, fault, error):
    api.respond = lambda _request: fault
    with pytest.raises(error) as caught:
        summarizer.summarize(TALK)
    assert KEY not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert summarizer.health_check() == {"status": "degraded", "reason": str(caught.value)}


def test_an_api_that_hangs(summarizer, api):
    release = threading.Event()
    api.respond = lambda _request: Reply(b"", after=release)
    with pytest.raises(DeadlineExceededError):
        summarizer.summarize(TALK, timeout=0.1)
    wait_until(lambda: not summarizer._backend._model._loop.running)
    assert api.running == 1  # the request was ended, and not answered
    summarizer._backend._model._api.request_timeout_s = 0.05
    with pytest.raises(RemoteServiceError, match=r"did not answer within 0\.05 s"):
        summarizer.summarize(TALK)
    release.set()

    def silent():
        yield event("It rains. ") + event("Then")
        release.wait(30)

    release.clear()
    api.respond = lambda _request: Reply(silent())
    with pytest.raises(RemoteServiceError, match="did not answer"):
        summarizer.summarize(TALK)
    release.set()


def test_requests_of_many_callers_are_bounded(summarizer, api):
    def slowly(_request):
        wait_until(lambda: api.running >= 4 or len(api.requests) > 4)
        time.sleep(0.02)  # for more to come, if they may
        return written("It rains.")

    api.respond = slowly
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda _: summarizer.summarize(TALK), range(24)))
    assert found == ["It rains."] * 24
    assert api.most_running == 4


def test_closing_ends_what_is_written(api):
    release = threading.Event()
    api.respond = lambda _request: Reply(b"", after=release)
    summarizer = Summarizer("openai:m", base_url=api.url)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(summarizer.summarize, TALK)
        wait_until(lambda: api.requests)
        summarizer.close()
        with pytest.raises(ServiceClosedError, match="the summariser is closed"):
            waiting.result(30)
    release.set()
    with pytest.raises(ServiceClosedError):
        summarizer.summarize(TALK)
    assert summarizer.get_model_info()["status"] == "closed"


# Names and addresses


def test_settings_name_the_model_and_the_address(api):
    settings = Settings(summary_model="openai:m", openai_base_url=api.url)
    with Summarizer(settings=settings) as summarizer:
        assert summarizer.mode == "abstractive"
        assert summarizer.summarize(TALK) == "It rains. Ben agrees."


def test_an_address_needs_a_model_behind_it(api):
    with pytest.raises(InvalidInputError, match="base_url goes with a model 'openai:NAME', found 'org/m'"):
        Summarizer("org/m", base_url=api.url)
    with pytest.raises(ConfigurationError, match="base_url goes with a model"):
        Summarizer(base_url=api.url)
    for bad in (0, True, "8"):
        with pytest.raises(InvalidInputError, match="context_tokens"):
            Summarizer("openai:m", base_url=api.url, context_tokens=bad)


def test_openais_own_api_is_asked_in_its_words(api, monkeypatch):
    monkeypatch.setattr("akidb_mlx.remote.access._DEFAULT_BASE_URL", api.url)
    with Summarizer("openai:m") as summarizer:
        assert summarizer.summarize(TALK) == "It rains. Ben agrees."
    fields = api.requests[0].body.keys()
    assert fields == {"model", "stream", "messages", "max_completion_tokens"}


def test_the_command_line(api, capsys):
    summarize(["It rains."], model="openai:m", base_url=api.url, max_words=20, language="en", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown == {
        "mode": "abstractive",
        "model": "openai:m",
        "messages": 1,
        "words": 4,
        "summary": "It rains. Ben agrees.",
    }


def test_the_server_passes_messages_on(api, monkeypatch):
    monkeypatch.setenv("AKIDB_OPENAI_BASE_URL", api.url)
    with running_server(models=[], summaries="openai:m") as client:
        answered = client.post("/v1/summarize", json={"messages": TALK})
        assert answered.status_code == 200, answered.text
        assert answered.json()["summary"] == "It rains. Ben agrees."
        api.respond = lambda _request: refusal(500)
        assert client.post("/v1/summarize", json={"messages": TALK}).status_code == 502
