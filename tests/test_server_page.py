"""The page at `/`: what it is served with, the report that it asks for, and its work in a real browser."""

import re
from html.parser import HTMLParser

import pytest

from akidb_mlx.errors import InferenceError
from akidb_mlx.server.page import _read_page
from tests.browser import CHROMIUM, browser
from tests.servers import load_tiny, running_server

MODEL = "tiny-bert"


def test_the_page_holds_all_that_it_needs():
    with running_server() as client:
        answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=\"(?!data:)", answer.text)  # nothing is fetched from elsewhere


def test_every_field_has_a_label_and_every_table_a_header():
    class Fields(HTMLParser):
        def __init__(self):
            super().__init__()
            self.labels, self.fields, self.headers = set(), set(), 0

        def handle_starttag(self, tag, attributes):
            found = dict(attributes)
            if tag == "label":
                self.labels.add(found["for"])
            if tag in ("input", "select", "textarea"):
                self.fields.add(found["id"])
            self.headers += tag == "th"

    fields = Fields()
    fields.feed(_read_page()[0].decode())
    assert fields.fields == fields.labels != set()
    assert fields.headers


def test_the_page_is_open_and_what_it_shows_needs_the_key(tmp_path):
    file = tmp_path / "keys"
    file.write_text("first\n")
    with running_server(api_key_file=file) as client:
        assert client.get("/").status_code == 200
        assert client.get("/v1/status").status_code == 401
        assert client.get("/v1/status", headers={"authorization": "Bearer first"}).status_code == 200
        # TEI's route has the same path, and needs the key.
        assert client.post("/", json={"inputs": "a"}).status_code == 401


def test_the_report():
    with running_server() as client:
        before = client.get("/v1/status").json()
        client.post("/v1/embeddings", json={"model": MODEL, "input": ["a text", "b " * 500]})
        after = client.get("/v1/status").json()
    (model,) = [one for one in before["models"] if one["name"] == MODEL]
    assert model == {"name": MODEL, "kind": "embedder", "state": "not loaded"}
    (model,) = [one for one in after["models"] if one["name"] == MODEL]
    assert (model["state"], model["texts"], model["truncated"], model["refused"]) == ("ready", 2, 1, 0)
    assert after["totals"]["texts"] == 2
    assert after["totals"]["tokens"] > 100
    assert after["totals"]["latency"]["count"] == 1
    assert after["requests_running"] == 1  # this one


class Moody:
    """A model whose calls fail while `works` is False."""

    def __init__(self):
        self.service, self.works, self.calls = load_tiny("embedder", MODEL), True, 0

    def submit(self, texts, **options):
        self.calls += 1
        if not self.works:
            raise InferenceError("not now")
        return self.service.submit(texts, **options)

    def __getattr__(self, name):
        return getattr(self.service, name)


def test_the_report_computes_nothing(monkeypatch):
    """It tells of the latest probe, which /health/ready makes of a model without requests."""
    monkeypatch.setattr("akidb_mlx.server.models._FRESH_S", -1.0)
    model = Moody()

    def report(client):
        status = client.get("/v1/status").json()
        return status["ready"], status["reason"]

    with running_server(lambda *_: model) as client:
        assert report(client) == (True, "ready")
        client.post("/v1/embeddings", json={"model": MODEL, "input": "a text"})
        assert report(client) == report(client) == (True, "ready")
        assert model.calls == 1
        model.works = False
        assert client.get("/health/ready").status_code == 503
        assert model.calls == 2
        assert report(client) == (False, f"{MODEL} does not answer")
        model.works = True
        assert client.get("/health/ready").status_code == 200
        assert report(client) == (True, "ready")
        assert model.calls == 3


def test_tei_keeps_its_errors_at_the_pages_path():
    with running_server() as client:
        assert "error_type" in client.post("/", json={"inputs": 7}).json()


@pytest.fixture(scope="module")
def shown():
    """A page in a browser, and the address of a server."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with running_server() as client, browser() as page:
        yield page, str(client.base_url)


MATRIX = "!document.getElementById('matrix').hidden"
FOCUS = "((one) => one.id || one.getAttribute('aria-label') || one.tagName)(document.activeElement)"


@pytest.mark.slow
def test_the_page_works_in_a_browser(shown):
    """It shows the model's state and the similarities that it is asked for."""
    page, address = shown
    page.open(f"{address}/#compare")
    page.wait_for(MATRIX)
    text = page.evaluate("document.body.innerText")
    assert re.search(r"ready, up for \d+ s", text), text
    assert MODEL in text
    assert "1.000" in text
    assert "Nothing was cut." in text


@pytest.mark.slow
@pytest.mark.parametrize("from_the_field", [True, False])
def test_the_page_by_keyboard(shown, from_the_field):
    """Tab reaches everything in the order in which it stands, the focus is seen, and Enter compares."""
    page, address = shown
    page.open(f"{address}/?{from_the_field}")
    page.wait_for("document.getElementById('model').options.length > 0")
    order = []
    for _ in range(4):
        page.press("Tab")
        order.append(page.evaluate(FOCUS))
        assert page.evaluate("document.activeElement.matches(':focus-visible')")
        assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
        if order[-1] == "texts" and from_the_field:
            page.evaluate("document.activeElement.select()")
            page.write("a text\nanother text")
            page.press("Enter", control=True)
            page.wait_for(MATRIX)
    assert order == ["Table of models", "model", "texts", "BUTTON"]
    if from_the_field:
        assert page.evaluate("document.querySelectorAll('#matrix tbody tr').length") == 2
    else:
        page.press("Enter")
        page.wait_for(MATRIX)
    # Read out when it changes, without taking the focus.
    assert page.evaluate("document.getElementById('outcome').getAttribute('aria-live')") == "polite"
    assert "Nothing was cut." in page.evaluate("document.getElementById('outcome').textContent")
    page.press("Tab")
    assert page.evaluate(FOCUS) == "Table of similarities"


@pytest.mark.slow
def test_the_page_on_a_phone(shown):
    """Only the tables scroll to the side."""
    page, address = shown
    page.open(f"{address}/?phone#compare", width=360, height=700)
    page.wait_for(MATRIX)
    assert page.evaluate("innerWidth") == 360
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    outside = "[...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll'))"
    beyond = f"{outside}.filter((one) => one.getBoundingClientRect().right > 361)"
    assert page.evaluate(f"{beyond}.map((one) => one.tagName)") == []
