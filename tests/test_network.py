"""Answers that take for ever, are endless, or are none: each call ends by its deadline, with an error of the tree."""

import functools
import json
import socket
import threading
import time
import zlib
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from model_cache import DownloadError, InvalidModelNameError, ModelCache, ModelUnavailableError, exchange, retries
from tests.hub import Fault
from tests.support import GOLDENS

TINY = GOLDENS / "tiny-bert"
WEIGHTS = "model.safetensors"
API, SMALL, CDN = "/api/models/*", "*/resolve/*/config.json", "/cdn/*"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
# More than any of these calls takes on a busy machine, less than what a test's server goes on sending.
HANG_S = 30


@pytest.fixture
def repo(hub, request):
    """A repository of its own for each test."""
    name = f"org/{abs(hash(request.node.nodeid))}"
    hub.add(name, TINY)
    return name


@pytest.fixture
def cache(tmp_path):
    """A cache whose deadline is never reached in these tests."""
    return ModelCache(tmp_path / "cache" / "models", download_timeout_s=3600)


@pytest.fixture
def hurried(hub, cache):
    """The same with a short deadline, of which importing the client takes nothing."""
    hub.add("org/first", TINY)
    cache.ensure("org/first")
    return ModelCache(cache.root, download_timeout_s=1)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(retries, "_LONGEST_PAUSE_S", 0.05)


@contextmanager
def fails(match, kind=DownloadError):
    """Expect an error whose message is one printable line of a sane length, and no hang."""
    start = time.monotonic()
    with pytest.raises(kind, match=match) as failure:
        yield
    assert time.monotonic() - start < HANG_S
    assert str(failure.value).isprintable()
    assert len(str(failure.value)) < 800


def described(hub, repo):
    """Return the Hub's answer to the question about a repository."""
    with urlopen(f"{hub.url}/api/models/{repo}?blobs=true") as answer:
        return json.load(answer)


def no_thread_is_left():
    """Return whether the threads of all exchanges end soon, and not with the server's patience."""
    end = time.monotonic() + HANG_S / 2
    while any(thread.name == "model-cache-exchange" for thread in threading.enumerate()):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# Time.
TRICKLES = {
    "headers": (OK + b"X-Long: ", b"y"),
    "body": (OK + b"\r\n", b" "),
    "chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"y"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/", b"y"),
    "error": (b"HTTP/1.1 503 No\r\nX-Error-Message: ", b"y"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "status line": (b"", b"H"),
}
PLACES = {"description": API, "file": SMALL, "weights": CDN}


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *(("description", kind) for kind in TRICKLES),
        *(("file", kind) for kind in ("headers", "redirect")),
        *(("weights", kind) for kind in ("headers", "body", "chunk")),
    ],
)
def test_a_trickle_ends_at_the_deadline(hub, cache, hurried, repo, place, kind):
    hub.fail(Fault(PLACES[place], raw=TRICKLES[kind], pause=0.05, times=None))
    with fails("in time"):
        hurried.ensure(repo)
    assert hub.raw_bytes
    assert no_thread_is_left()
    hub.reset()
    assert cache.ensure(repo).is_dir()


def test_the_body_of_an_error_is_not_waited_for(hub, cache, repo):
    hub.fail(Fault(API, raw=(b"HTTP/1.1 404 Not Found\r\n\r\n", b" "), pause=0.05, times=None))
    with fails("refused .* with status 404", ModelUnavailableError):
        cache.ensure(repo)


def test_a_name_that_is_not_resolved_in_time(hub, hurried, repo, monkeypatch):
    """No time-out of the client bounds this."""
    over = threading.Event()
    real = socket.getaddrinfo

    def slow(*arguments, **options):
        over.wait(HANG_S)
        return real(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with fails("in time"):
        hurried.ensure(repo)
    over.set()
    assert no_thread_is_left()
    assert hub.count(f"*{repo}*") == 0  # a connection that comes too late is closed at once


def test_a_pause_within_a_long_deadline(hub, cache, repo, monkeypatch):
    monkeypatch.setattr(exchange, "_STEP_TIMEOUT_S", 0.5)
    hub.fail(Fault(SMALL, raw=(OK + b"X-Long: ", b"y"), pause=0.05))
    assert cache.ensure(repo).is_dir()  # the second attempt


def test_a_description_that_takes_too_long_is_asked_for_again(hub, cache, repo, monkeypatch):
    monkeypatch.setattr("model_cache.hub._DESCRIPTION_TIMEOUT_S", 0.5)
    hub.fail(Fault(API, raw=(OK + b"\r\n", b" "), pause=0.05))
    assert cache.ensure(repo).is_dir()


# Size.
@pytest.mark.parametrize("path", [API, SMALL, CDN], ids=["api", "file", "cdn"])
def test_the_endless_body_of_a_redirect_is_not_read(hub, cache, repo, path):
    head = f"HTTP/1.1 302 Found\r\nLocation: {hub.cdn_url}/elsewhere\r\n\r\n".encode()
    hub.fail(Fault(path, raw=(head, bytes(1 << 16)), times=None))
    with fails("the Hub refused|is gated", ModelUnavailableError):  # what "elsewhere" answers
        cache.ensure(repo)
    assert hub.raw_bytes < 64 << 20


def test_the_endless_body_of_an_error_is_not_read(hub, cache, repo):
    hub.fail(Fault(API, raw=(b"HTTP/1.1 404 Not Found\r\n\r\n", bytes(1 << 16)), times=None))
    with fails("refused .* with status 404", ModelUnavailableError):
        cache.ensure(repo)
    assert hub.raw_bytes < 64 << 20


def test_an_endless_description(hub, cache, repo):
    hub.fail(Fault(API, raw=(OK + b"\r\n", b" " * (1 << 16)), times=None))
    with fails(r"is longer than \d+ bytes"):
        cache.ensure(repo)
    assert hub.raw_bytes < 64 << 20


def test_endless_headers(hub, cache, repo):
    hub.fail(Fault(API, raw=(OK, b"X-More: and more\r\n" * 1000), times=None))
    with fails("could not be downloaded"):
        cache.ensure(repo)
    assert hub.raw_bytes < 64 << 20


@functools.cache
def bomb():
    packer = zlib.compressobj(wbits=31)
    return packer.compress(bytes(64 << 20)) + packer.flush()


@pytest.mark.parametrize(
    ("path", "encoding"),
    [
        *((API, one) for one in ("gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip")),
        (SMALL, "br"),
        (CDN, "gzip"),
    ],
)
def test_what_is_compressed_is_refused_before_it_is_unpacked(hub, cache, repo, path, encoding):
    hub.fail(Fault(path, headers={"Content-Encoding": encoding}, body=bomb(), times=None))
    with fails(f"is encoded as {encoding.lower()}, which was not asked for"):
        cache.ensure(repo)
    assert {request.headers["accept-encoding"] for request in hub.requests} == {"identity"}


def test_identity_is_no_encoding(hub, cache, repo):
    hub.fail(Fault("*", headers={"Content-Encoding": "identity"}, times=None))
    assert cache.ensure(repo).is_dir()


# Redirects.
def test_redirects_in_a_circle(hub, cache, repo):
    hub.fail(Fault(API, redirect=f"{hub.url}/api/models/{repo}", times=None))
    with fails("TooManyRedirects: more than 10 redirects"):
        cache.ensure(repo)
    assert len(hub.requests) == 11


@pytest.mark.parametrize(
    "location",
    ["http://[::1", "file:///etc/passwd", "http://", "http://a:99999/", "http://\xff.example:80/", "a b", ""],
)
@pytest.mark.parametrize("path", [API, SMALL], ids=["api", "file"])
def test_redirects_to_nowhere(hub, cache, repo, path, location):
    hub.fail(Fault(path, redirect=location, times=None))
    with fails(None, (DownloadError, ModelUnavailableError)):
        cache.ensure(repo)


# Answers that are not what was asked for.
MALFORMED = {
    "a captive portal": b"<!DOCTYPE html><html><body>Welcome to the guest network</body></html>",
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"5",
    "a text": b'"text"',
    "cut off": b'{"sha": "',
    "not UTF-8": b'{"sha": "\xff"}',
    "deep": b'{"siblings": ' + b"[" * 200_000,
    "deep in a field that nobody reads": b'{"config": ' + b'{"a":' * 200_000,
    "an empty object": b"{}",
    "a number of a million digits": b'{"siblings": [{"rfilename": "a", "size": ' + b"9" * 1_000_000 + b"}]}",
    "a million files": b'{"siblings": [' + b'{"rfilename":"a"},' * 600_000 + b"0]}",
    "a million faults": b'{"siblings": [' + b"0," * 1_000_000 + b"0]}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_description_that_is_none(hub, cache, repo, body):
    hub.fail(Fault(API, body=body, times=None))
    with fails(r"the answer to /api/models/org/\d+ is (not a description of a model: |longer than)"):
        cache.ensure(repo)
    assert hub.count("*/resolve/*") == 0


def test_a_captive_portal_is_shown(hub, cache, repo):
    hub.fail(Fault(API, body=MALFORMED["a captive portal"]))
    with fails(r"Invalid JSON.*found a text of \d+ bytes that begins with '<!DOCTYPE html><html>.* a login page"):
        cache.ensure(repo)


LIST = "siblings"
WRONG = [
    ("sha", None),
    ("sha", "main"),
    ("sha", "A" * 40),
    ("sha", "../../../../etc"),
    ("sha", 5),
    ("cardData", []),
    (LIST, None),
    (LIST, {}),
    (LIST, "config.json"),
    (LIST, [None]),
    (LIST, [["config.json"]]),
    ("rfilename", None),
    ("rfilename", 5),
    ("rfilename", "\ud800"),
    ("rfilename", ["a"]),
    ("rfilename", "x" * 100_000),
    ("size", None),
    ("size", "5"),
    ("size", 1.5),
    ("size", True),
    ("size", -1),
    ("size", float("nan")),
    ("size", float("inf")),
    ("size", 10**30),
    ("size", []),
    ("blobId", 5),
    ("blobId", "abc"),
    ("lfs", []),
    ("lfs", "sha"),
    ("lfs", {}),
    ("lfs", {"sha256": None}),
    ("lfs", {"sha256": "../../evil"}),
    ("lfs", {"sha256": "F" * 64}),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=[f"{field}={value!r:.30}" for field, value in WRONG])
def test_a_field_of_a_wrong_kind(hub, cache, repo, field, value):
    description = described(hub, repo)
    place = description if field in ("sha", LIST, "cardData") else description[LIST][0]
    place[field] = value
    hub.fail(Fault(API, body=json.dumps(description).encode(), times=None))
    before = hub.count("*/resolve/*")
    with fails("is not a description of a model"):
        cache.ensure(repo)
    assert hub.count("*/resolve/*") == before
    assert cache.list() == []


def without(key):
    return lambda siblings: siblings[0].pop(key)


def both_hashes_gone(siblings):
    for sibling in siblings:
        sibling.pop("lfs", None)
        sibling.pop("blobId")


SIBLINGS = {
    "no name": (without("rfilename"), "Field required"),
    "no size": (without("size"), r"no size of .+\.json"),
    "no hash": (both_hashes_gone, r"no hash of .+\.json"),
    "twice": (lambda siblings: siblings.append({**siblings[0], "size": 3}), "is listed twice"),
    "twice in other letters": (
        lambda siblings: siblings.extend(
            {**siblings[0], "rfilename": name} for name in ("1_A/config.json", "1_a/config.json")
        ),
        "is listed twice",
    ),
}


@pytest.mark.parametrize(("change", "fault"), SIBLINGS.values(), ids=SIBLINGS)
def test_a_list_of_files_that_cannot_be(hub, cache, repo, change, fault):
    description = described(hub, repo)
    change(description[LIST])
    hub.fail(Fault(API, body=json.dumps(description).encode(), times=None))
    with fails(fault):
        cache.ensure(repo)


def test_a_file_that_is_also_a_folder(hub, cache):
    hub.add("org/ner", {"config.cfg": b"a", "ner/model": b"b", "tokenizer": b"c"})
    description = described(hub, "org/ner")
    description[LIST].append({**description[LIST][0], "rfilename": "tokenizer/cfg"})
    hub.fail(Fault(API, body=json.dumps(description).encode(), times=None))
    with fails("tokenizer is listed twice, or as a file and as a folder"):
        cache.ensure("org/ner")


def test_another_commit_than_was_asked_for(hub, cache, repo):
    asked = described(hub, repo)["sha"]
    newer = hub.add(repo, {"config.json": b"{}", WEIGHTS: b"newer"})
    hub.fail(Fault(API, body=json.dumps(described(hub, repo)).encode(), times=None))
    with fails(f"it is of commit {newer}"):
        cache.ensure(repo, asked)


@pytest.mark.parametrize("licence", [["mit"], 5, None, "m" * 1000])
def test_a_licence_may_be_anything(hub, cache, repo, licence):
    description = {**described(hub, repo), "cardData": {"license": licence}}
    hub.fail(Fault(API, body=json.dumps(description).encode()))
    cache.ensure(repo)
    (model,) = cache.list()
    assert model.licence is None or len(model.licence) < 200


@pytest.mark.parametrize("path", [API, SMALL, CDN], ids=["api", "file", "cdn"])
@pytest.mark.parametrize("status", [203, 204, 206, 302, 304])
def test_a_status_that_promises_no_content(hub, cache, repo, path, status):
    hub.fail(Fault(path, status=status, times=None))
    with fails(f"has the status {status}, expected 200"):
        cache.ensure(repo)


def test_another_range_than_was_asked_for(hub, cache, repo):
    hub.fail(Fault(CDN, cut=0.5))
    hub.fail(Fault(CDN, body=b"x" * 100, headers={"Content-Range": "bytes 5-104/829368"}))
    path = cache.ensure(repo)
    assert (path / WEIGHTS).read_bytes() == (TINY / WEIGHTS).read_bytes()
    statuses = [request.status for request in hub.requests if request.server == "cdn"]
    assert statuses == [200, 206, 200]  # the last one brought all of it


@pytest.mark.parametrize("value", ["", "bytes */829368", "bytes x-y/z", "lines 5-9/10", "bytes \u0660-"])
def test_a_range_that_says_nothing(hub, cache, repo, value):
    hub.fail(Fault(CDN, cut=0.5))
    hub.fail(Fault(CDN, headers={"Content-Range": value.encode().decode("latin-1")}))
    path = cache.ensure(repo)
    assert (path / WEIGHTS).read_bytes() == (TINY / WEIGHTS).read_bytes()


# What an error says.
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (418, {"X-Error-Message": "\x1b[31m" + "x" * 5000}),
        (429, {"ratelimit": f'"api";r=0;t={"9" * 5000}', "Retry-After": "9" * 5000}),
        (400, {"X-Error-Code": "\xe9" * 3000}),
        (777, {}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_an_error_says_is_bounded(hub, cache, repo, status, headers):
    hub.fail(Fault(API, status=status, headers=headers, times=None))
    with fails(None, (DownloadError, ModelUnavailableError)):
        cache.ensure(repo)


@pytest.mark.parametrize("token", ["hf_\x0bsecret", "hf_\u20acsecret"])
def test_a_token_that_cannot_be_sent_is_not_shown(cache, repo, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with fails(r"the Hub's token in HF_TOKEN", ModelUnavailableError):
        try:
            cache.ensure(repo)
        except ModelUnavailableError as error:
            assert "secret" not in str(error)
            raise


def test_a_signature_is_not_shown(hub, cache, repo):
    hub.fail(Fault(CDN, status=404, times=None))
    with fails("refused .* with status 404", ModelUnavailableError):
        try:
            cache.ensure(repo)
        except ModelUnavailableError as error:
            assert "signature" not in str(error)
            raise


def test_the_clients_own_session_is_used(hub, cache, repo):
    """So that its proxies and certificates are."""
    from httpx2 import Client
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    set_client_factory(lambda: Client(headers={"X-Own": "yes"}))
    try:
        cache.ensure(repo)
    finally:
        set_client_factory(default_client_factory)
    assert {request.headers.get("x-own") for request in hub.requests} == {"yes"}


def test_hostile_names_stay_hostile(hub, cache, repo):
    description = described(hub, repo)
    description[LIST].append({**description[LIST][0], "rfilename": "a/../../b"})
    hub.fail(Fault(API, body=json.dumps(description).encode()))
    with fails("is not the name of a file", InvalidModelNameError):
        cache.ensure(repo)
