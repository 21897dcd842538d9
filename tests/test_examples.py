"""The example of the database: its log can be imported, and a newcomer sees answers and a picture."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from xml.etree import ElementTree

import pytest

from embedded_db.chat_log import ChatLogs
from tests.db_support import open_db
from tests.support import minilm_installed

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_log_can_be_imported():
    with open_db() as db:
        logs = ChatLogs(db)
        assert list(logs.add(EXAMPLES / "chats.jsonl")) == []
        assert (logs.messages, logs.chats) == (21, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("english")
def test_the_example_shows_answers_and_draws_the_graph(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    if not minilm_installed():
        pytest.skip("all-MiniLM-L6-v2 is not installed")
    spec = spec_from_file_location("chats", EXAMPLES / "chats.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["chats.py", str(tmp_path)])
    monkeypatch.setenv("COLUMNS", "200")
    for _ in range(2):  # the second time it finds the messages in place
        module.main()
        shown = capsys.readouterr().out
        assert "'Chat': 3" in shown and "'Message': 21" in shown and "21 vectors" in shown
        assert "rye flour" in shown and "Vienna (GPE)" in shown and "├── Paris" in shown
    assert ElementTree.parse(tmp_path / "graph.svg").getroot().tag.endswith("svg")
