"""Known answers of a model, and figures of how close its vectors are to those of its original."""

from __future__ import annotations

from akidb_mlx.fidelity.answers import ANSWERS, Answer, KnownAnswers, read_answers, write_answers
from akidb_mlx.fidelity.card import CARD, FidelityCard, read_card, write_card
from akidb_mlx.fidelity.checking import check_answers, likely_causes
from akidb_mlx.fidelity.making import make_answers
from akidb_mlx.fidelity.measuring import Measured, SentencePairs, make_card, measure, read_pairs
from akidb_mlx.fidelity.texts import TextSet, default_texts, read_texts

__all__ = [
    "ANSWERS",
    "CARD",
    "Answer",
    "FidelityCard",
    "KnownAnswers",
    "Measured",
    "SentencePairs",
    "TextSet",
    "check_answers",
    "default_texts",
    "likely_causes",
    "make_answers",
    "make_card",
    "measure",
    "read_answers",
    "read_card",
    "read_pairs",
    "read_texts",
    "write_answers",
    "write_card",
]
