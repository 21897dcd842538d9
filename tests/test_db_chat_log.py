"""Chat logs: JSONL and CSV, and the lines that are no messages."""

import csv
import json

import pytest

from embedded_db.chat_log import ChatLogs, parse_time
from embedded_db.errors import InvalidRecordError
from tests.db_support import open_db


def add(db, file, content):
    """Add a file, and return the lines that were left out as (line, error), the messages and the chats."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    logs = ChatLogs(db)
    bad = [(one.line, one.error) for one in logs.add(file)]
    return bad, logs.messages, logs.chats


def messages(db):
    found = db.query(structural_filters=[{"field": "type", "operator": "Equals", "value": "Message"}], limit=10_000)
    return [one.node for one in found]


def test_every_field_of_a_line(tmp_path):
    line = {
        "content": "Zoë\nmet Bob",
        "sender": "Alice",
        "role": "user",
        "chat": "trip",
        "chat_title": "The trip",
        "time": "2026-01-31T12:00:00+02:00",
        "id": "one",
        "metadata": {"priority": 3},
        "channel": "mail",
        "reply_to": None,
    }
    with open_db() as db:
        assert add(db, tmp_path / "a.jsonl", "\ufeff" + json.dumps(line) + "\r\n\n") == ([], 1, 1)
        node, chat = db.get_node("one"), db.get_node("trip")
        assert (node.type, node.created_at) == ("Message", 1769853600.0)
        assert node.properties == {
            "content": "Zoë\nmet Bob",
            "sender": "Alice",
            "role": "user",
            "chat_id": "trip",
            "metadata": {"priority": 3},
            "channel": "mail",
        }
        assert (chat.type, chat.title, chat.created_at) == ("Chat", "The trip", node.created_at)
        assert db.weaver_status()["waiting"] == {"embedding": 1, "entities": 1}


def test_a_chat_that_is_not_named_is_the_file_and_one_that_exists_is_kept(tmp_path):
    with open_db() as db:
        db.create_node({"type": "Chat", "id": "old", "title": "The old one"})
        lines = [{"content": "a"}, {"content": "b", "chat": "old", "chat_title": "new"}, {"content": "c"}]
        assert add(db, tmp_path / "team.jsonl", "\n".join(map(json.dumps, lines))) == ([], 3, 1)
        assert [node.chat_id for node in messages(db)] == ["team", "old", "team"]
        assert db.get_node("old").title == "The old one"
        assert add(db, tmp_path / "team.jsonl", '{"content": "d"}') == ([], 1, 0)


def test_lines_that_are_no_messages_are_named_and_the_others_added(tmp_path):
    lines = [
        b'{"content": "first"}',
        b"{",
        b"[1]",
        b'{"content": 5}',
        b'{"sender": "Alice"}',
        b'{"content": "caf\xe9"}',
        b'{"content": "\\ud800"}',
        b'{"content": "a\\u0000b"}',
        b'{"content": "a", "time": "soon"}',
        b'{"content": "a", "metadata": [1]}',
        b'{"content": "a", "metadata": {"n": NaN}}',
        b'{"content": "a", "type": "Chat"}',
        b'{"content": "a", "chat": ""}',
        b"[" * 100_000,
        b'{"content": "last"}',
    ]
    with open_db() as db:
        bad, added, chats = add(db, tmp_path / "a.jsonl", b"\n".join(lines))
        assert (added, chats) == (2, 1)
        assert [node.content for node in messages(db)] == ["first", "last"]
    assert [line for line, _ in bad] == list(range(2, 15))
    expected = ["no JSON", "object", "content", "content", "UTF-8", "surrogate", "NUL", "time", "metadata", "finite"]
    expected += ["type", "chat", "JSON"]
    assert [part for (_, error), part in zip(bad, expected, strict=True) if part not in error] == []


def test_what_only_the_database_refuses_leaves_the_rest_of_its_batch(tmp_path):
    """The ids are usable in themselves; of a chat whose only message is refused, nothing is left."""
    lines = [{"content": f"m{number}", "id": str(number % 7), "chat": f"c{number}"} for number in range(9)]
    lines.append({"content": "a", "chat": "no chat"})
    with open_db() as db:
        db.create_node({"type": "Topic", "id": "no chat"})
        bad, added, chats = add(db, tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
        assert (added, chats) == (7, 7)
        assert [line for line, _ in bad] == [8, 9, 10]
        assert "'0' already" in bad[0][1] and "Topic" in bad[2][1]
        assert db.stats()["nodes"] == {"Chat": 7, "Message": 7, "Topic": 1}


def test_more_lines_than_one_batch(tmp_path):
    seen = []
    with open_db() as db:
        file = tmp_path / "a.jsonl"
        file.write_text("".join(f'{{"content": "m{number}"}}\n' for number in range(600)))
        logs = ChatLogs(db)
        assert list(logs.add(file, seen.append)) == []
        assert (logs.messages, logs.chats) == (600, 1)
        assert [node.content for node in messages(db)] == [f"m{number}" for number in range(600)]
    assert seen == sorted(seen) and len(seen) == 2 and seen[-1] <= file.stat().st_size


def test_a_line_that_is_too_long_to_hold_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("embedded_db.chat_log._MAX_LINE", 100)
    with open_db() as db:
        content = '{"content": "a"}\n' + "x" * 350 + '\n{"content": "b"}\n'
        bad, added, _ = add(db, tmp_path / "a.jsonl", content)
        assert ([line for line, _ in bad], added) == ([2], 2)


def test_csv(tmp_path):
    content = (
        "\ufeffcontent, sender,time,metadata,channel\r\n"
        '"two\nlines, one cell",Alice,1769853600,"{""priority"": 3}",mail\r\n'
        "plain,,,,\r\n"
        "\r\n"
        "too,few\r\n"
        "a,b,,{,\r\n"
        '"open"x,b,,,\r\n'
        "last,Bob,,,\r\n"
    )
    with open_db() as db:
        bad, added, _ = add(db, tmp_path / "a.CSV", content)
        assert added == 3
        assert [line for line, _ in bad] == [6, 7, 8]
        assert ["2 cells" in bad[0][1], "metadata" in bad[1][1], "CSV" in bad[2][1]] == [True] * 3
        found = {node.content: node.properties for node in messages(db)}
        assert found["two\nlines, one cell"] == {
            "content": "two\nlines, one cell",
            "sender": "Alice",
            "chat_id": "a",
            "metadata": {"priority": 3},
            "channel": "mail",
        }
        assert found["plain"] == {"content": "plain", "chat_id": "a"}


def test_lines_of_csv_that_are_too_long_are_named_with_their_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("embedded_db.chat_log._MAX_LINE", 100)
    content = (
        "content,sender\n" + "x" * 350 + ',Alice\nb,Bob\n"two\n' + "y" * 350 + '\nlines",Bob\n'
        '"' + "z" * 350 + '\nend",Bob\n' + 'n,"' + "n" * 350 + '"\nlast,Bob\n'
    )
    with open_db() as db:
        bad, added, _ = add(db, tmp_path / "a.csv", content)
        assert [line for line, _ in bad] == [2, 4, 7, 9]
        assert all("longer than" in error for _, error in bad)
        assert [node.content for node in messages(db)] == ["b", "last"]
        bad, added, _ = add(db, tmp_path / "b.csv", "content," + "x" * 350 + "\na,b\n")
        assert ([line for line, _ in bad], added) == ([1], 0)


def test_the_limit_of_the_process_for_cells_is_not_lowered(tmp_path):
    before = csv.field_size_limit(2**30)
    try:
        with open_db() as db:
            assert add(db, tmp_path / "a.csv", "content\na\n")[1] == 1
        assert csv.field_size_limit() == 2**30
    finally:
        csv.field_size_limit(before)


def test_csv_that_is_not_utf8_or_has_no_header(tmp_path):
    with open_db() as db:
        bad, added, _ = add(db, tmp_path / "a.csv", b"content\ncaf\xe9\nb\n")
        assert ([line for line, _ in bad], added) == ([2], 1)
        assert "UTF-8" in bad[0][1]
        for header in (b"text,sender\na,b\n", b"content,content\na,b\n"):
            bad, added, _ = add(db, tmp_path / "b.csv", header)
            assert ([line for line, _ in bad], added) == ([1], 0)
        assert add(db, tmp_path / "b.csv", b"") == ([], 0, 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-01-31T12:00:00Z", 1769860800.0),
        ("2026-01-31T12:00:00", 1769860800.0),
        ("2026-01-31 14:00:00+02:00", 1769860800.0),
        ("2026-01-31", 1769817600.0),
        ("1769860800", 1769860800.0),
        (1769860800.5, 1769860800.5),
        (-1, -1.0),
    ],
)
def test_times(given, expected):
    assert parse_time(given) == expected


@pytest.mark.parametrize(
    "given", ["", "soon", "nan", "1e999", True, None, [1], "2026-13-01", 1769860800000, "1769860800000", -1e13]
)
def test_what_is_no_time(given):
    with pytest.raises(InvalidRecordError, match="time"):
        parse_time(given)
