"""Compare servers of embeddings on the same texts and machine, the table of docs/servers.md.

    python -m benchmarks.servers [--only akidb-mlx,infinity] [--json FILE]
    python -m benchmarks.servers --install

oha makes the requests, which `make bench-servers` installs. Each server has an environment of its own in `.bench`. One
that is absent or does not start is reported with the reason. Vectors are compared with those of `EmbeddingService`.
"""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from akidb_mlx import EmbeddingService
from benchmarks import environments, oha
from benchmarks.compare import find_model
from benchmarks.workloads import mixed

_CONNECTIONS = (1, 16, 256)
# Texts of the load, of which oha takes one at random for each request: so many that few of those that wait are equal,
# since this package computes equal ones once. The vectors of the first are checked.
_TEXTS, _CHECKED = 4096, 256
# A vector whose cosine to ours is lower is wrong.
_LEAST_COSINE = 0.999
_START_S, _ANSWER_S = 180.0, 120.0
_SHORT = "Which planet is known as the red planet?"


@dataclass(frozen=True)
class Contestant:
    """A server, and how it is installed and started.

    Attributes:
        command: returns the command for a model's directory and a port.
        model: returns the name by which requests ask for the model in a directory.
        python: the environment in `.bench`; None for ours.
        requirements: of that environment.
    """

    command: Callable[[Path, int], list[str]]
    model: Callable[[Path], str] = str
    python: str | None = None
    requirements: tuple[str, ...] = ()


def _python(name: str) -> Path:
    return environments.ROOT / ".bench" / name / "bin" / "python"


def _infinity(directory: Path, port: int) -> list[str]:
    command = [str(_python("infinity").with_name("infinity_emb")), "v2", "--model-id", str(directory)]
    command += ["--port", str(port), "--url-prefix", "/v1", "--engine", "torch", "--device", "cpu"]
    return [*command, "--dtype", "float32", "--no-bettertransformer", "--no-model-warmup"]


def _llama(directory: Path, port: int) -> list[str]:
    """Return the command, which needs the weights as a GGUF; it is made once from the same files."""
    file = environments.ROOT / ".bench" / "llama.cpp" / f"{directory.name}.gguf"
    if not file.exists():
        convert = [str(_python("llama.cpp")), "-m", "benchmarks.bert_gguf", str(directory), str(file)]
        subprocess.run(convert, check=True, cwd=environments.ROOT, capture_output=True)
    command = [str(_python("llama.cpp")), "-m", "llama_cpp.server", "--model", str(file), "--model_alias", "bert"]
    command += ["--port", str(port), "--embedding", "true", "--n_ctx", "512", "--n_batch", "512", "--n_ubatch", "512"]
    return [*command, "--n_threads", str(environments.CORES), "--n_threads_batch", str(environments.CORES)]


def _mlx_vlm(directory: Path, port: int) -> list[str]:
    command = [str(_python("mlx-embeddings")), "-m", "mlx_vlm.server", "--embedding-model", str(directory)]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]


def _ours(directory: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "akidb_mlx", "serve", "-m", str(directory), "--preload", "--port", str(port)]


CONTESTANTS = {
    "akidb-mlx": Contestant(_ours),
    "infinity": Contestant(
        _infinity,
        lambda directory: directory.name,
        "infinity",
        ("infinity-emb[server,torch]==0.0.77", "numpy<2", "click<8.2"),
    ),
    # It shares the environment that benchmarks.environments makes.
    "mlx-vlm": Contestant(_mlx_vlm, python="mlx-embeddings"),
    "llama.cpp": Contestant(
        _llama, lambda _: "bert", "llama.cpp", ("llama-cpp-python[server]>=0.3,<0.4", "gguf>=0.10,<1", "safetensors<1")
    ),
}


@dataclass
class Result:
    """Figures of one server.

    Attributes:
        absent: why it was not measured; then nothing else is known.
        texts_per_s: by number of connections.
        failed: requests without an answer of status 200, by number of connections.
        latency_ms: median of a short text alone.
        memory_mb: resident memory of its processes after all.
        wrong: vectors that are wrong, of those checked.
        checked: how many were.
        least_cosine: the least cosine to ours.
    """

    name: str
    absent: str = ""
    texts_per_s: dict[int, float] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)
    latency_ms: float = 0.0
    memory_mb: float = 0.0
    wrong: int = 0
    checked: int = 0
    least_cosine: float = 1.0


class ServerError(Exception):
    """A server did not start, or answered with something else than vectors."""


@contextmanager
def serving(command: list[str], embed: Callable[[int], object], port: int) -> Iterator[psutil.Popen]:
    """Start a server, wait until it embeds, and stop it and its children at the end."""
    with tempfile.TemporaryFile("w+") as log:
        variables = {**environments.process_variables(), "ANONYMIZED_TELEMETRY": "0", "DO_NOT_TRACK": "1"}
        process = psutil.Popen(command, stdout=log, stderr=log, env=variables, cwd=tempfile.gettempdir())
        try:
            _wait_until_it_embeds(process, embed, port, log)
            yield process
        finally:
            with suppress(psutil.NoSuchProcess):  # one that has ended by itself
                for one in [*process.children(recursive=True), process]:
                    one.kill()
            process.wait()


def _wait_until_it_embeds(process: psutil.Popen, embed: Callable[[int], object], port: int, log: Any) -> None:
    end, problem = time.monotonic() + _START_S, "no answer"
    while time.monotonic() < end:
        if process.poll() is not None:
            log.seek(0)
            lines = [line.strip() for line in log.read().splitlines() if line.strip()]
            raise ServerError(f"ended with status {process.returncode}: {(lines or ['no message'])[-1][:200]}")
        try:
            embed(port)
        except (OSError, HTTPException, ServerError) as error:
            problem = str(error)
            time.sleep(0.2)
        else:
            return
    raise ServerError(f"did not embed within {_START_S:.0f} s: {problem}")


def ask(port: int, model: str, texts: list[str]) -> NDArray[np.float32]:
    """Return the vectors of texts.

    Raises:
        ServerError: the answer holds none.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        connection.request("POST", "/v1/embeddings", _body(model, texts), {"content-type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ServerError(f"status {answer.status}: {content[:200]!r}")
    return np.array([item["embedding"] for item in json.loads(content)["data"]], np.float32)


def _body(model: str, texts: list[str]) -> str:
    return json.dumps({"model": model, "input": texts})


def check(
    embed: Callable[[str], NDArray[np.float32]], texts: list[str], expected: NDArray[np.float32]
) -> tuple[int, float]:
    """Embed texts on 16 threads; return how many are wrong or absent, and the least cosine."""

    def cosine(index: int) -> float:
        try:
            found = embed(texts[index])
        except ServerError:
            return -1.0
        product = float(np.linalg.norm(found) * np.linalg.norm(expected[index]))
        value = float(found @ expected[index]) / product if found.shape == expected[index].shape else -1.0
        return value if np.isfinite(value) else -1.0

    with ThreadPoolExecutor(16) as pool:
        cosines = list(pool.map(cosine, range(len(texts))))
    return sum(one < _LEAST_COSINE for one in cosines), min(cosines)


def _load(port: int, model: str, texts: list[str], connections: int, seconds: int) -> tuple[float, int]:
    """Send a request for each text in turn; return the answers a second, and how many requests failed."""
    bodies = (_body(model, [text]) for text in texts)
    url = f"http://127.0.0.1:{port}/v1/embeddings"
    report = oha.send(url, bodies, connections, seconds, "-t", f"{_ANSWER_S:.0f}s")
    return report["statusCodeDistribution"].get("200", 0) / seconds, oha.count_failed(report, "200")


def measure(name: str, directory: Path, texts: list[str], expected: NDArray[np.float32], seconds: int) -> Result:
    """Measure one server; one that is absent or fails has the reason in its result."""
    contestant, result = CONTESTANTS[name], Result(name)
    if contestant.python and not _python(contestant.python).exists():
        return Result(name, absent="not installed: python -m benchmarks.servers --install")
    model, port = contestant.model(directory), _free_port()

    def embed(text: str) -> NDArray[np.float32]:
        found: NDArray[np.float32] = ask(port, model, [text])[0]
        return found

    try:
        command = contestant.command(directory, port)
        with serving(command, lambda port: ask(port, model, ["ready"]), port) as process:
            result.wrong, result.least_cosine = check(embed, texts[: len(expected)], expected)
            result.checked = len(expected)
            result.latency_ms = _median_latency_ms(lambda: embed(_SHORT))
            for connections in _CONNECTIONS:
                rate, failed = _load(port, model, texts, connections, seconds)
                result.texts_per_s[connections], result.failed[connections] = rate, failed
            everyone = [process, *process.children(recursive=True)]
            result.memory_mb = sum(one.memory_info().rss for one in everyone) / 1e6
    except (ServerError, OSError, HTTPException, subprocess.SubprocessError) as error:
        return Result(name, absent=f"{type(error).__name__}: {error}"[:300])
    return result


def _median_latency_ms(work: Callable[[], object], rounds: int = 50) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def install() -> None:
    """Make the environments that are absent; one that cannot be made is named, and the others are made all the same."""
    environments.install()
    for name, contestant in CONTESTANTS.items():
        if not contestant.requirements or _python(name).exists():
            continue
        folder = environments.ROOT / ".bench" / name
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([_python(name), "-m", "pip", "install", "--quiet", *contestant.requirements], check=True)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(folder, ignore_errors=True)
            print(f"{name} cannot be installed: {error}", file=sys.stderr)


def table(results: list[Result]) -> Table:
    """Return the results for a terminal."""
    shown = Table(
        "server", *(f"texts/s, {count} conn." for count in _CONNECTIONS), "one text, ms", "MB", "wrong", "cosine"
    )
    for one in results:
        if one.absent:
            shown.add_row(one.name, f"absent: {one.absent}")
            continue
        rates = [
            f"{one.texts_per_s[count]:.1f}" + (f" ({one.failed[count]} failed)" if one.failed[count] else "")
            for count in _CONNECTIONS
        ]
        wrong = f"{one.wrong} of {one.checked}"
        shown.add_row(
            one.name, *rates, f"{one.latency_ms:.1f}", f"{one.memory_mb:.0f}", wrong, f"{one.least_cosine:.4f}"
        )
    return shown


def main(
    only: Annotated[str, typer.Option(help="Servers, separated by commas.")] = ",".join(CONTESTANTS),
    seconds: Annotated[int, typer.Option(help="Seconds of each load.")] = 20,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results here.")] = None,
    prepare: Annotated[bool, typer.Option("--install", help="Make the servers' environments and end.")] = False,
) -> None:
    """Compare servers of embeddings on all-MiniLM-L6-v2."""
    if prepare:
        install()
        return
    names = only.split(",")
    if unknown := set(names) - set(CONTESTANTS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; known: {', '.join(CONTESTANTS)}", param_hint="--only")
    found = find_model("minilm")
    if found is None:
        raise typer.BadParameter("the weights of all-MiniLM-L6-v2 are not installed")
    directory = Path(found.directory)
    texts = mixed(_TEXTS, directory)
    with EmbeddingService(str(directory)) as service:
        expected = service.embed_array(texts[:_CHECKED])
    results = []
    for name in names:
        results.append(measure(name, directory, texts, expected, seconds))
        Console(width=160).print(table(results))  # after each, since the next may take minutes
        if json_file:
            json_file.write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
