"""The Hub that tests download from does what its documentation says, as the real client sees it."""

import http.client
import json
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.hub import Fault, Hub
from tests.support import GOLDENS, run_python

CLIENT = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
try:
    print(json.dumps(eval(sys.argv[1]), default=vars))
except Exception as error:
    print(json.dumps(type(error).__name__))
"""
TINY = GOLDENS / "tiny-bert"
FILES = {path.relative_to(TINY).as_posix(): path.read_bytes() for path in TINY.rglob("*") if path.is_file()}
WEIGHTS = "hf_hub_download('org/tiny', 'model.safetensors')"
# The client writes, and so resumes, in pieces of 10 MiB.
BIG = random.Random(0).randbytes(24 << 20)


@pytest.fixture
def hub():
    with Hub() as one:
        one.add("org/tiny", TINY)
        yield one


@pytest.fixture
def ask(hub, tmp_path):
    def ask(expression):
        done = run_python(CLIENT, 60, expression, **hub.environment(tmp_path))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def fetch(hub, path, **headers):
    """One plain request: status, body."""
    with closing(http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=10)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_model_info_gives_commit_sizes_and_hashes(hub, ask):
    commit = hub.add("org/tiny", {"hello.txt": b"hello\n", "model.safetensors": b"hello\n"})
    info = ask("HfApi().model_info('org/tiny', files_metadata=True)")
    assert info["sha"] == commit
    plain, weights = info["siblings"]
    assert (plain["rfilename"], plain["size"], plain["lfs"]) == ("hello.txt", 6, None)
    assert plain["blob_id"] == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert (weights["size"], weights["lfs"]["size"]) == (6, 6)
    assert weights["blob_id"] == "fa61e1ef71c9908c0926776a4aa3504b3a27f159"  # git hash-object, of the pointer
    assert weights["lfs"]["sha256"] == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


def test_listings(ask):
    listed = ask("[(type(one).__name__, one.path) for one in HfApi().list_repo_tree('org/tiny', recursive=True)]")
    assert sorted(listed) == sorted([["RepoFile", name] for name in FILES] + [["RepoFolder", "1_Pooling"]])
    assert "1_Pooling/config.json" not in ask("[one.path for one in HfApi().list_repo_tree('org/tiny')]")
    found = ask("HfApi().get_paths_info('org/tiny', ['model.safetensors', 'none'])")
    assert [(one["path"], one["lfs"]["size"]) for one in found] == [("model.safetensors", 829368)]


def test_revisions(hub, ask):
    old = hub.add("org/other", {"a": b"1"})
    hub.tag("org/other", "v1", old)
    new, branch = hub.add("org/other", {"a": b"2"}), hub.add("org/other", {"a": b"3"}, branch="refs/pr/1")
    found = "[HfApi().model_info('org/other', revision=one).sha for one in (None, 'main', 'v1', 'refs/pr/1', '%s')]"
    assert ask(found % old) == [new, new, old, branch, old]
    assert hub.add("org/other", {"a": b"1"}) == old
    assert Path(ask("hf_hub_download('org/other', 'a', revision='v1')")).read_bytes() == b"1"


@pytest.mark.parametrize("where", ["cache_dir", "local_dir"])
def test_a_snapshot_is_the_files_and_the_cdn_gets_no_token(hub, ask, tmp_path, where):
    snapshot = Path(ask(f"snapshot_download('org/tiny', token='secret', {where}={str(tmp_path / 'to')!r})"))
    for name, content in FILES.items():
        assert (snapshot / name).read_bytes() == content
    assert Counter((one.method, one.server, "authorization" in one.headers) for one in hub.requests) == {
        ("GET", "hub", True): 2 + len(FILES) - 1,  # revision, tree, and the files but one
        ("HEAD", "hub", True): len(FILES),
        ("GET", "cdn", False): 1,
    }
    assert hub.count("*/resolve/*", method="HEAD") == len(FILES)


def test_the_environment_hides_the_users_own(hub, ask, monkeypatch):
    for name, value in {"HF_TOKEN": "mine", "HTTP_PROXY": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert Path(ask("hf_hub_download('org/tiny', 'config.json')")).read_bytes() == FILES["config.json"]
    assert not any("authorization" in one.headers for one in hub.requests)


@pytest.mark.parametrize(
    ("expression", "error", "status"),
    [
        ("hf_hub_download('org/gated', 'a')", "GatedRepoError", 401),
        ("hf_hub_download('org/gated', 'a', token='wrong')", "GatedRepoError", 403),
        ("hf_hub_download('org/tiny', 'none')", "RemoteEntryNotFoundError", 404),
        ("hf_hub_download('org/tiny', 'config.json', revision='none')", "RevisionNotFoundError", 404),
        ("HfApi().model_info('org/tiny', revision='none')", "RevisionNotFoundError", 404),
        ("HfApi().model_info('org/none')", "RepositoryNotFoundError", 401),
        ("snapshot_download('org/none', token='any')", "RepositoryNotFoundError", 404),
    ],
)
def test_refusals(hub, ask, expression, error, status):
    hub.add("org/gated", {"a": b"1"}, gated_token="right")
    assert ask(expression) == error
    assert hub.requests[-1].status == status
    assert fetch(hub, "/org/gated/resolve/main/a", Authorization="Bearer right") == (200, b"1")


@pytest.mark.parametrize(("ignored", "statuses"), [(False, [200, 206]), (True, [200, 200])])
def test_cut_and_resumed(hub, ask, ignored, statuses):
    hub.add("org/tiny", {"model.safetensors": BIG})
    hub.fail(Fault("/cdn/*", cut=0.5))
    hub.fail(Fault("/cdn/*", ignore_range=ignored))
    assert Path(ask(WEIGHTS)).read_bytes() == BIG
    transfers = [one for one in hub.requests if one.server == "cdn"]
    assert [one.status for one in transfers] == statuses
    assert transfers[1].headers["range"] == f"bytes={10 << 20}-"


def test_a_flipped_byte_is_delivered(hub, ask):
    hub.fail(Fault("/cdn/*", flip=True))
    content, right = Path(ask(WEIGHTS)).read_bytes(), FILES["model.safetensors"]
    assert len(content) == len(right)
    assert sum(one != other for one, other in zip(content, right, strict=True)) == 1


@pytest.mark.parametrize(
    ("fault", "outcome", "statuses"),
    [
        (Fault("/cdn/*", status=503), "HfHubHTTPError", [302, 503]),
        (Fault("/cdn/*", status=429, headers={"Retry-After": "0"}), "file", [302, 429, 200]),
        (Fault("*/resolve/*", "HEAD", status=500), "file", [500, 302, 200]),
        (Fault("/cdn/*", reset=True), "ReadError", [302, 0]),
        (Fault("/cdn/*", reset=True, after=0.5), "ReadError", [302, 200]),
        (Fault("/cdn/*", stall=30), "file", [302, 0, 200]),
        (Fault("/cdn/*", stall=30, after=0.5), "file", [302, 200, 200]),
        (Fault("/cdn/*", cut=0.0), "file", [302, 200, 200]),
    ],
)
def test_faults_as_the_client_meets_them(hub, ask, fault, outcome, statuses):
    hub.fail(fault)
    found = ask(WEIGHTS)
    assert [one.status for one in hub.requests] == statuses
    assert Path(found).read_bytes() == FILES["model.safetensors"] if outcome == "file" else found == outcome


def test_a_redirect_leads_anywhere(hub, ask):
    hub.fail(Fault("*/config.json", redirect=f"{hub.cdn_url}/elsewhere"))
    assert ask("hf_hub_download('org/tiny', 'config.json', token='secret')") == "HfHubHTTPError"
    last = hub.requests[-1]
    assert (last.server, last.path, "authorization" in last.headers) == ("cdn", "/elsewhere", False)


def test_another_body_and_raw_bytes(hub):
    hub.fail(Fault("*/config.json", body=b"[]"))
    hub.fail(Fault("*/config.json", raw=(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"ab"), times=1))
    path = "/org/tiny/resolve/main/config.json"
    assert [fetch(hub, path) for _ in range(2)] == [(200, b"[]"), (200, b"ababa")]
    assert hub.raw_bytes >= 5


def test_slow_is_slow_enough_to_kill_the_client(hub, tmp_path):
    hub.fail(Fault("/cdn/*", slow=10_000))
    client = subprocess.Popen([sys.executable, "-c", CLIENT, WEIGHTS], env=hub.environment(tmp_path))
    while client.poll() is None and not hub.count("/cdn/*"):
        time.sleep(0.01)
    assert client.poll() is None
    client.kill()
    client.wait()
    assert len(list(tmp_path.rglob("*.incomplete"))) == 1


def test_ranges(hub):
    hub.add("org/tiny", {"digits": b"01234"})
    asked = ["bytes=2-", "bytes=1-2", "bytes=-2", "bytes=5-", "lines=1-"]
    found = [fetch(hub, "/org/tiny/resolve/main/digits", Range=one) for one in asked]
    assert found == [(206, b"234"), (206, b"12"), (206, b"34"), (416, b""), (200, b"01234")]


def test_the_script_is_followed_in_order_and_by_parallel_requests(hub):
    hub.fail(Fault("*/config.json", times=5, status=503))
    hub.fail(Fault("*/resolve/*", "HEAD", times=None, status=500))
    hub.fail(Fault("*", times=None, status=418))
    with ThreadPoolExecutor(16) as pool:
        statuses = pool.map(lambda _: fetch(hub, "/org/tiny/resolve/main/config.json")[0], range(40))
        assert Counter(statuses) == {503: 5, 418: 35}
    assert hub.count("*/config.json", method="GET") == 40
