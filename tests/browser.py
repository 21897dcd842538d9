"""A headless Chromium, driven by its own protocol over a pipe; no driver or library beside it is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_ANSWER_S = 60
_KEYS = {"Tab": 9, "Enter": 13}


class Page:
    """One page of a browser."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers, self._count, self._session, self._read = requests, answers, 0, None, b""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def open(self, address: str, width: int = 1000, height: int = 1100) -> None:
        """Go to an address in a window of this size."""
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self._ask("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + _ANSWER_S
        while not self.evaluate(condition):
            shown = self.evaluate("document.body.innerText")
            assert time.monotonic() < end, f"never true: {condition}; the page: {shown}"
            time.sleep(0.05)

    def press(self, key: str, control: bool = False) -> None:
        """Press a key as a person does."""
        code = _KEYS[key]
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 2 if control else 0}
        text = {"text": "\r"} if key == "Enter" else {}
        self._ask("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text: str) -> None:
        """Write into the field that has the focus."""
        self._ask("Input.insertText", text=text)

    def screenshot(self) -> bytes:
        """Return what is seen, as a PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        request = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._requests, json.dumps(request).encode() + b"\0")
        while True:
            answer = json.loads(self._receive())
            if answer.get("id") == self._count:  # others are events
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> bytes:
        while b"\0" not in self._read:
            assert select.select([self._answers], [], [], _ANSWER_S)[0], "the browser does not answer"
            block = os.read(self._answers, 1 << 16)
            assert block, "the browser ended"
            self._read += block
        message, _, self._read = self._read.partition(b"\0")
        return message


# Chromium reads requests from descriptor 3 and writes answers to 4.
_REDIRECT = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextmanager
def browser() -> Iterator[Page]:
    """Start Chromium with an empty profile, and end it afterwards."""
    assert CHROMIUM is not None
    to_it, requests = os.pipe()
    answers, from_it = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        command = [sys.executable, "-c", _REDIRECT, str(to_it), str(from_it), CHROMIUM, *flags]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_it, from_it), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_it)
        os.close(from_it)
        try:
            yield Page(requests, answers)
        finally:
            process.kill()
            process.wait()
            os.close(requests)
            os.close(answers)


def write_screenshot(file: Path) -> None:
    """Write a picture of the page of a server that has embedded some texts."""
    from tests.servers import running_server
    from tests.support import TEXTS

    with running_server(models=["tiny-bert", "tiny-qwen3"], rerankers=["reranker-bert"]) as client, browser() as page:
        page.open(f"{client.base_url}#compare", height=1300)
        page.wait_for("!document.getElementById('matrix').hidden")
        for number in range(12):  # something for the plots to show
            client.post("/v1/embeddings", json={"model": "tiny-bert", "input": TEXTS[: 1 + number * 3 % 7]})
            time.sleep(0.6)
        page.evaluate("window.scrollTo(0, 0)")
        file.write_bytes(page.screenshot())


if __name__ == "__main__":
    write_screenshot(Path(sys.argv[1]))
