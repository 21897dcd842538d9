"""Messages, words and sentences: what summaries are made of."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.summarization.messages import Message, parse_messages
from akidb_mlx.summarization.words import count_words, first_words
from tests.support import run_python

sentencex = pytest.importorskip("sentencex", reason="the extra `summarize` is not installed")
from akidb_mlx.summarization.sentences import SentenceSplitter  # noqa: E402


@pytest.mark.parametrize(
    ("given_messages", "expected"),
    [
        ([], []),
        ("one text", [Message("one text")]),
        (["  a ", "\n", "b"], [Message("a"), Message("b")]),
        (({"role": "user", "content": "a"} for _ in range(2)), [Message("a", "user")] * 2),
        ([{"role": "user", "name": "Ada", "content": "a"}], [Message("a", "Ada")]),
        ([{"speaker": " Ada\nLovelace ", "content": "a", "id": 7}], [Message("a", "Ada Lovelace")]),
        ([{"role": None, "content": "a"}, {"content": "b"}], [Message("a"), Message("b")]),
        ([{"role": " ", "content": "a"}], [Message("a")]),
    ],
)
def test_messages(given_messages, expected):
    assert parse_messages(given_messages) == expected


@pytest.mark.parametrize(
    ("messages", "index", "words"),
    [
        (None, None, "found NoneType"),
        (b"bytes", None, "found bytes"),
        ({"role": "user", "content": "a"}, None, "found dict"),
        (7, None, "found int"),
        (["a", None], 1, "message 1 must be a string or a record"),
        (["a", b"b"], 1, "found bytes"),
        (["a", "b\ud800c"], 1, "lone surrogate, U+D800 at character 1"),
        ([{"role": "user"}], 0, "under 'content', found NoneType"),
        ([{"role": "user", "content": [{"text": "a"}]}], 0, "under 'content', found list"),
        ([{"role": 3, "content": "a"}], 0, "under 'role', found int"),
        ([{"name": "x" * 101, "content": "a"}], 0, "at most 100 characters under 'name', found 101"),
        ([{"name": "\udfff", "content": "a"}], 0, "'name' of message 0 holds a lone surrogate"),
    ],
)
def test_messages_that_are_refused(messages, index, words):
    with pytest.raises(InvalidInputError) as caught:
        parse_messages(messages)
    assert caught.value.index == index
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" \n\t", 0),
        ("one, two\u00a0three", 3),
        ("naïve café — 3.5 %", 5),
        ("今天天气很好。", 7),  # six characters, and the stop between white space and nothing
        ("Apple発表", 3),
        ("カタカナ", 4),
        ("한국어 문장", 2),
        ("ภาษาไทย", 2),
        ("word" * 16 + " " + "x" * 65, 3),
        ("👩‍👩‍👧 x", 2),
    ],
)
def test_words_of_many_scripts(text, words):
    assert count_words(text) == words


@given(st.text(alphabet=st.sampled_from("ab \n。今日ไทยم"), max_size=80), st.integers(0, 20))
def test_the_first_words(text, count):
    first = first_words(text, count)
    assert text.startswith(first)
    assert count_words(first) == min(count, count_words(text))
    assert count_words(text) >= len(text.split())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        (
            "Dr. Smith left at 3.5 p.m. on Monday. He was late!",
            ["Dr. Smith left at 3.5 p.m. on Monday.", "He was late!"],
        ),
        ("First.\n\nSecond", ["First.", "Second"]),
        ("今天很好。我们去公园吧！好吗？", ["今天很好。", "我们去公园吧！", "好吗？"]),
        ("これはペンです。あれは本です。", ["これはペンです。", "あれは本です。"]),
        ("هل أنت بخير؟ نعم، شكرا.", ["هل أنت بخير؟", "نعم، شكرا."]),
        ("मैं घर जा रहा हूँ। तुम कहाँ हो?", ["मैं घर जा रहा हूँ।", "तुम कहाँ हो?"]),
        ("Γεια σου. Τι κάνεις;", ["Γεια σου.", "Τι κάνεις;"]),
    ],
)
def test_sentences_of_many_languages(text, sentences):
    assert [text[one.start : one.end] for one in SentenceSplitter()(text)] == sentences


def test_abbreviations_of_a_language():
    text = "Am 3. Mai kam sie. Dann ging er."
    assert len(list(SentenceSplitter("de")(text))) == 2


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from("abC. \n!?。」\"'(今\u0301😀\u2028"), max_size=300))
def test_sentences_leave_out_white_space_only(text):
    position = 0
    for one in SentenceSplitter()(text):
        assert not text[position : one.start].strip()
        assert text[one.start : one.end].strip() == text[one.start : one.end] != ""
        position = one.end
    assert not text[position:].strip()


def test_a_long_text_is_split_as_a_whole():
    text = "".join(f'Dr. {i} said "Yes. No." to Mr. B. and left. ' for i in range(2000))
    whole = [sentence.strip() for sentence in sentencex.segment("en", text)]
    assert [text[one.start : one.end] for one in SentenceSplitter()(text)] == whole


@pytest.mark.parametrize("text", ["今天天气很好。" * 100_000, "x" * 1_000_000, "word " * 200_000, '."(' * 300_000])
def test_a_long_text_takes_work_in_proportion(text, monkeypatch):
    """The library's time grows with the square of what it is given at once."""
    given_at_once = []

    def segment(language, part):
        given_at_once.append(len(part))
        return real_segment(language, part)

    real_segment = sentencex.segment
    monkeypatch.setattr(sentencex, "segment", segment)
    spans = list(SentenceSplitter()(text))
    assert max(given_at_once) <= 8192
    assert sum(given_at_once) < 1.5 * len(text)
    assert sum(one.end - one.start for one in spans) > len(text) * 0.7
    assert max(one.end - one.start for one in spans) <= 2 * 8192


def test_without_the_extra():
    done = run_python(
        "import sys; sys.modules['sentencex'] = None\n"
        "from akidb_mlx.summarization import Summarizer\n"
        "from akidb_mlx.errors import ConfigurationError\n"
        "try: Summarizer()\n"
        "except ConfigurationError as error: print(error)"
    )
    assert done.stdout == "summaries need an extra: run `pip install 'akidb-mlx[summarize]'`\n", done.stderr
