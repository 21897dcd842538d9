"""A tiny spaCy pipeline that is trained here, and packages and models made of it."""

import json
import shutil
from pathlib import Path

PEOPLE, PLACES = ("Alice", "Bob", "Čapek", "Zoë"), ("Paris", "Brno", "Köln")
# An exclamation mark ends a sentence here, and no entity crosses into the next one.
CROSSING = "Yahoo! Inc"
LISTENER = {"@architectures": "spacy.Tok2VecListener.v1", "width": 32, "upstream": "tok2vec"}


def train(folder: Path, language: str = "en") -> Path:
    """A pipeline with a recogniser that listens, sentences in front of it, and a component that it does not need."""
    import spacy
    from spacy.training import Example
    from spacy.util import fix_random_seed

    fix_random_seed(0)
    nlp = spacy.blank(language)
    nlp.add_pipe("tok2vec", config={"model": {"width": 32, "depth": 1, "embed_size": 500}})
    nlp.add_pipe("ner", config={"model": {"tok2vec": LISTENER, "hidden_width": 16}})
    texts = [
        (f"{person} met {other} in {place}", {"PERSON": (person, other), "GPE": (place,)})
        for person, other, place in zip(PEOPLE, (*PEOPLE[1:], PEOPLE[0]), (*PLACES, PLACES[0]), strict=True)
    ]
    texts += [
        (f"{one} in {place}. xxxx {one}", {"PERSON": (one,), "GPE": (place,)})
        for one, place in zip(PEOPLE, (*PLACES, "Paris"), strict=True)
    ]
    texts += [("He works at Yahoo! Inc now", {"ORG": (CROSSING,)}), ("nothing of note was there", {})]
    examples = [
        Example.from_dict(
            nlp.make_doc(text),
            {
                "entities": [
                    (text.index(one), text.index(one) + len(one), label)
                    for label, all_ in found.items()
                    for one in all_
                ]
            },
        )
        for text, found in texts
    ]
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.01
    for _ in range(60):
        nlp.update(examples, sgd=optimizer, drop=0.0)
    nlp.add_pipe("sentencizer", before="ner")
    nlp.add_pipe("attribute_ruler").add([[{"LOWER": "the"}]], {"POS": "DET"})
    nlp.meta.update(name="tiny", version="1.0.0", license="MIT", author="")
    nlp.to_disk(folder)
    return folder


def install(site: Path, pipeline: Path, distribution: str, lang: str, name: str, **meta: object) -> Path:
    """Make a folder for sys.path hold a distribution with a pipeline; returns the pipeline's folder.

    Its package raises when it is imported.
    """
    package = f"{lang}_{name}"
    folder = site / package / f"{package}-9.0.0"
    shutil.copytree(pipeline, folder)
    edit_meta(folder, lang=lang, name=name, version="9.0.0", **meta)
    (site / package / "__init__.py").write_text("raise RuntimeError('a model package was imported')")
    info = site / f"{distribution.replace('-', '_')}-9.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9.0.0\n")
    files = [path.relative_to(site).as_posix() for path in (site / package).rglob("*") if path.is_file()]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    return folder


def edit_meta(folder: Path, **changes: object) -> None:
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
