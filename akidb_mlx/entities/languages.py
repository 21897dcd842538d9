"""The table of languages and their models, and the detection of a text's language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from akidb_mlx.errors import ConfigurationError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

DEFAULT_MODEL = "en_core_web_sm"
# Characters that a text's language is detected from.
_CHARACTERS = 2_000


@dataclass(frozen=True)
class LanguageModel:
    """The model for a language.

    Attributes:
        language: ISO 639-1 code, "xx" for the model of several languages.
        model: its name, also of the repository below `spacy/` on the Hub.
        package: the distribution and version that carries it, where the Hub has no such repository.
    """

    language: str
    model: str
    package: str | None = None


MULTILINGUAL = LanguageModel("xx", "xx_ent_wiki_sm")
LANGUAGES: dict[str, LanguageModel] = {
    row.language: row
    for row in (
        LanguageModel("ca", "ca_core_news_sm"),
        LanguageModel("cs", "cs_core_news_sm", package="cs-core-news-sm==0.2.1"),
        LanguageModel("da", "da_core_news_sm"),
        LanguageModel("de", "de_core_news_sm"),
        LanguageModel("el", "el_core_news_sm"),
        LanguageModel("en", DEFAULT_MODEL),
        LanguageModel("es", "es_core_news_sm"),
        LanguageModel("fi", "fi_core_news_sm"),
        LanguageModel("fr", "fr_core_news_sm"),
        LanguageModel("hr", "hr_core_news_sm"),
        LanguageModel("it", "it_core_news_sm"),
        LanguageModel("ja", "ja_core_news_sm"),
        LanguageModel("ko", "ko_core_news_sm"),
        LanguageModel("lt", "lt_core_news_sm"),
        LanguageModel("mk", "mk_core_news_sm"),
        LanguageModel("nb", "nb_core_news_sm"),
        LanguageModel("nl", "nl_core_news_sm"),
        LanguageModel("pl", "pl_core_news_sm"),
        LanguageModel("pt", "pt_core_news_sm"),
        LanguageModel("ro", "ro_core_news_sm"),
        LanguageModel("ru", "ru_core_news_sm"),
        LanguageModel("sl", "sl_core_news_sm"),
        LanguageModel("sv", "sv_core_news_sm"),
        LanguageModel("uk", "uk_core_news_sm"),
        MULTILINGUAL,
        LanguageModel("zh", "zh_core_web_sm"),
    )
}
# Languages that are detected and left to the multilingual model. Those close to one above (Slovak, Bulgarian) are not
# among them: short texts of that language would be taken for them, and its model serves them better.
_OTHERS = ("ar", "bn", "et", "fa", "he", "hi", "hu", "hy", "id", "ka", "lv", "ta", "te", "th", "tr", "ur", "vi")
# The detector's codes for languages that have another code here.
_SAME = {"no": "nb", "nn": "nb"}


def model_for(language: str) -> LanguageModel:
    """Return the model for a language's code, which may carry a region ("pt-BR").

    Raises:
        ConfigurationError: no model is known for it.
    """
    code = language.lower().replace("_", "-").partition("-")[0]
    row = LANGUAGES.get(_SAME.get(code, code))
    if row is None:
        raise ConfigurationError(
            f"no model is known for the language {language!r}: name a model, take one of {', '.join(LANGUAGES)}, "
            "or use 'auto' to detect each text's language"
        )
    return row


class LanguageDetector:
    """Detects a text's language with py3langid, whose model is part of its package; safe from any thread."""

    def __init__(self) -> None:
        self._identifier = _load_identifier()

    def __call__(self, text: str) -> LanguageModel:
        """Return the model for a text; the multilingual one where its language has none, or cannot be detected."""
        sample = text[:_CHARACTERS]
        if not any(map(str.isalpha, sample)):
            return MULTILINGUAL
        code = self._identifier.classify(sample)[0]
        return LANGUAGES.get(_SAME.get(code, code), MULTILINGUAL)


def _load_identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    known = {code for code in LANGUAGES if code not in ("xx", "nb")}
    identifier.set_languages([*known, *_SAME, *_OTHERS])
    return identifier
