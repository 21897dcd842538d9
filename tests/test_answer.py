"""The treatment of a model's text: thinking, stops, sentences and limits, whatever pieces it comes in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("sentencex", reason="the extra `summarize` is not installed")

from akidb_mlx.summarization.answer import until, whole_sentences, without_thinking
from akidb_mlx.summarization.sentences import SentenceSplitter
from akidb_mlx.summarization.words import count_words

THINK = ("<think>", "</think>")


def in_pieces(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "inside", "left"),
    [
        ("plain", False, "plain"),
        ("<think>hm</think>yes", False, "yes"),
        ("a <think>b</think> c<think></think>d", False, "a  cd"),
        ("still thinking</think>yes", True, "yes"),
        ("never ends", True, ""),
        ("yes<think>never ends", False, "yes"),
        ("a < b <thin", False, "a < b <thin"),
        ("</think>x", False, "</think>x"),
    ],
)
def test_thinking_is_left_out(text, inside, left, size):
    assert "".join(without_thinking(in_pieces(text, size), THINK, inside)) == left


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("one line\nanother", "one line"),
        ("\n\n  after white space\nmore", "after white space"),
        ("before <messages>after", "before "),
        ("\n1. The first\n2. The second", "The first"),
        ("* The first\n* The second", "The first"),
        (" 12.5 kg\n", "12.5 kg"),
        ("\n42", "42"),
        ("a <mess and nothing", "a <mess and nothing"),
        ("", ""),
    ],
)
def test_stops(text, left, size):
    assert "".join(until(in_pieces(text, size), ("\n", "<messages"))) == left


def sentences(text, max_words, size=3, complete=True):
    return list(whole_sentences(in_pieces(text, size), max_words, SentenceSplitter(), lambda: complete))


@pytest.mark.parametrize(
    ("text", "max_words", "expected"),
    [
        ("One two. Three four.", 9, ["One two.", " Three four."]),
        ("One two. Three four. Five six.", 4, ["One two.", " Three four."]),
        ("One two. Three four five six.", 4, ["One two."]),
        ("One two three four. Five.", 2, ["One two"]),
        ("One two. Two. One two. Six.", 9, ["One two.", " Two."]),
        ("No end and no end", 9, ["No end and no end"]),
        ("今天很好。我们去公园。", 5, ["今天很好。"]),
        ("  ", 9, []),
    ],
)
def test_whole_sentences(text, max_words, expected):
    assert sentences(text, max_words) == expected


def test_what_was_left_unfinished():
    assert sentences("One two. Three", 9, complete=False) == ["One two."]
    assert sentences("One two. Three", 9, complete=True) == ["One two.", " Three"]
    assert sentences("One two", 9, complete=False) == ["One two"]


def test_a_known_sentence_ends_the_text():
    split = SentenceSplitter()
    text = ["One two. Three", " four. Five six."]
    assert list(whole_sentences(text, 9, split, lambda: True, ["Three four."])) == ["One two."]
    assert list(whole_sentences(text, 9, split, lambda: True, ["One two."])) == []
    assert list(whole_sentences(["One two."], 1, split, lambda: True, ["One two."])) == []


def test_reading_ends_with_the_limit():
    """A model that does not end is not waited for."""

    def endless():
        while True:
            yield "word and "

    assert list(whole_sentences(endless(), 3, SentenceSplitter(), lambda: False)) == ["word and word"]


@given(
    st.lists(st.sampled_from(["One two.", "Three?", "Four five six!", "今天很好。", "Dr. B. left.", "no end"])),
    st.integers(1, 12),
)
def test_pieces_do_not_matter(parts, max_words):
    text = " ".join(parts)
    whole = "".join(sentences(text, max_words, size=100))
    assert "".join(sentences(text, max_words, size=1)) == whole
    assert count_words(whole) <= max_words
    assert text.startswith(whole)
    assert bool(whole) == bool(text)
