"""A random model directory: an ordinary model, and a few edits of its files."""

import copy
from dataclasses import dataclass
from random import Random
from typing import Any

from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from tests.fuzz import edits
from tests.fuzz.architectures import DECODERS, NAMES, Model, make_config, make_tensors
from tests.fuzz.changes import MODULES, POOLING_CONFIG, hidden_size, module, numbered
from tests.fuzz.contents import WEIGHTS, Contents
from tests.fuzz.edits import Edit
from tests.fuzz.tokenizer_files import KINDS, make_tokenizer, token_ids

TEXTS = (
    "the harbour master kept a ledger of ships",
    "The HARBOUR Master KEPT a Ledger,  twice.\n",
    "naïve café, élan: ﬁancée in İstanbul 漢字 🚢 1234",
    "[MASK] <mask> kept<extra>lonely token </s>[SEP]<|endoftext|> LEDGER xkept ships ",
    "",
    "  ",
    "ship",
    " ".join(f"the {word} of harbour {number}" for number, word in enumerate(["ships", "Ledger", "storm"] * 15)),
)
# Files of sentence-transformers, which community conversions lose.
_LOST = (MODULES, POOLING_CONFIG, "sentence_bert_config.json", "config_sentence_transformers.json")
_RULE_NAMES = {"last": "lasttoken"}
_FLAGS = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken", "max": "max_tokens"}


@dataclass(frozen=True)
class Case:
    """A model directory that can be made again.

    Attributes:
        model: the architecture and the kind of tokenizer.
        seed: decides the sizes, the weights and what else is free in an ordinary model.
        community: whether the files of sentence-transformers are lost. The reference then gets those that the rules of
            the architecture stand for.
        edits: what was changed, in order.
    """

    model: Model
    seed: int
    community: bool
    edits: tuple[Edit, ...]

    @property
    def ordinary(self) -> bool:
        """Return whether the directory must load."""
        return all(edit.ordinary for edit in self.edits)

    def contents(self) -> Contents:
        """Return the directory."""
        contents = self._edited()
        if self.community:
            dense = [name for name in contents.tensors if name.endswith(f"_Dense/{WEIGHTS}")]
            for number, name in enumerate(sorted(dense)):
                contents.files.pop(name.replace(WEIGHTS, "config.json"))
                main = next(file for file in contents.tensors if file not in dense)
                for key, tensor in contents.tensors.pop(name).items():
                    contents.tensors[main][key.replace("linear", f"dense.{number}")] = tensor
            for name in _LOST:
                contents.files.pop(name, None)
        return contents

    def reference_contents(self) -> Contents:
        """Return the directory as the reference needs it to follow the same rules."""
        contents = self._edited()
        rule = ARCHITECTURES[self.model.architecture]
        if self.community:
            contents.files.pop("sentence_bert_config.json", None)  # nothing stands for its limit
        # Without it the reference would take the mean, whatever the pooling's own file says.
        if (rule.pooling is not None or POOLING_CONFIG in contents.files) and MODULES not in contents.files:
            contents.files[MODULES] = numbered(
                [module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")]
            )
        if rule.pooling is not None and POOLING_CONFIG not in contents.files:
            mode = _RULE_NAMES.get(rule.pooling, rule.pooling)
            contents.files[POOLING_CONFIG] = {"embedding_dimension": hidden_size(contents), "pooling_mode": mode}
        if rule.prompts:
            prompts = contents.files.setdefault("config_sentence_transformers.json", {})
            prompts.setdefault("prompts", dict(rule.prompts))
        _follow_our_rules(contents)
        return contents

    def without(self, edit: Edit) -> "Case":
        """Return the case without one of its edits."""
        return Case(self.model, self.seed, self.community, tuple(other for other in self.edits if other is not edit))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        values = [edit._asdict() for edit in self.edits]
        return {"model": self.model._asdict(), "seed": self.seed, "community": self.community, "edits": values}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Case":
        """Return the case that `to_json` described."""
        changes = tuple(Edit(**edit) for edit in content["edits"])
        return cls(Model(**content["model"]), content["seed"], content["community"], changes)

    def _edited(self) -> Contents:
        contents = _ordinary_contents(self)
        for edit in self.edits:
            edits.apply(edit, contents)
        return contents


def draw_case(seed: int, number: int) -> Case:
    """Return case `number` of a run: some are ordinary, most have one edit that need not be, some have several."""
    rng = Random(f"{seed} {number}")
    architecture = rng.choice(NAMES)
    # Qwen3's pooling needs its own last token. Other architectures are published with tokenizers of others, too, and
    # Llama 3 with none of its own class.
    other = architecture not in ("qwen3", "llama") and rng.random() < 0.12
    tokenizer = "qwen2" if architecture == "llama" else architecture
    if other:
        tokenizer = rng.choice([name for name in KINDS if name != "qwen3"])
    # Without sentence-transformers' files, only a rule of the architecture says how to pool.
    community = architecture in ("qwen3", "gemma3_text") and rng.random() < 0.25
    case = Case(Model(architecture, tokenizer), rng.randrange(10**6), community, ())
    kinds = [True] * rng.choice((0, 0, 1, 2, 3)) + [False] * rng.choice((0, 0, 0, 1, 1, 1, 1, 2, 3))
    rng.shuffle(kinds)
    contents = case._edited()
    for ordinary in kinds:
        for _ in range(20):
            changed = copy.deepcopy(contents)
            try:
                edit = edits.draw(rng, case.model, contents, ordinary)
                edits.apply(edit, changed)
            except (KeyError, TypeError, IndexError):
                continue  # an earlier edit took away what this one changes
            if not (community and _is_lost(edit)):
                case, contents = Case(case.model, case.seed, community, (*case.edits, edit)), changed
                break
    return case


def _follow_our_rules(contents: Contents) -> None:
    """Change the reference's directory where docs/checkpoints.md says that the reference differs on purpose."""
    prompts = contents.files.get("config_sentence_transformers.json", {}).get("prompts")
    if isinstance(prompts, dict) and "document" not in prompts:
        synonym = next((name for name in ("passage", "corpus") if name in prompts), None)
        if synonym is not None:
            prompts["document"] = prompts[synonym]
    config = contents.files["config.json"]
    positions, kind = config.get("max_position_embeddings"), config.get("model_type")
    if kind in ("roberta", "xlm-roberta") and isinstance(padding := config.get("pad_token_id", 1), int):
        positions = positions and positions - padding - 1
    elif kind not in DECODERS:
        return
    transformer = contents.files.get("sentence_bert_config.json", {})
    limit = transformer.get("max_seq_length", contents.files.get("tokenizer_config.json", {}).get("model_max_length"))
    if isinstance(positions, int) and isinstance(limit, int) and limit > positions > 0:
        contents.files["sentence_bert_config.json"] = {**transformer, "max_seq_length": positions}


def _is_lost(edit: Edit) -> bool:
    """Return whether an edit is of the files that a community conversion loses."""
    return edit.kind in ("modules", "add_dense") or "Dense" in edit.file or edit.file.startswith(("sentence_", *_LOST))


def _ordinary_contents(case: Case) -> Contents:
    rng = Random(case.seed)
    architecture = case.model.architecture
    rule = ARCHITECTURES[architecture]
    tokenizer, tokenizer_config = make_tokenizer(case.model.tokenizer, rng)
    if case.model.tokenizer != architecture:
        tokenizer_config["tokenizer_class"] = "PreTrainedTokenizerFast"
    spare = rng.randint(4, 8)
    config = make_config(architecture, max(token_ids(tokenizer).values()) + 1 + spare, rng)
    contents = Contents(tensors={WEIGHTS: make_tensors(config, case.seed)}, spare_ids=spare)
    size = config.get("hidden_size", config.get("dim"))
    pooling = rng.choice(("mean", "cls", "lasttoken"))
    if case.community and rule.pooling is not None:
        pooling = _RULE_NAMES.get(rule.pooling, rule.pooling)
    # RoBERTa's positions begin after the padding's.
    longest = config["max_position_embeddings"] - 2 - config.get("pad_token_id", 0)
    limit = rng.randint(14, longest)
    in_tokenizer = case.community or rng.random() < 0.3
    tokenizer_config["model_max_length"] = limit if in_tokenizer else rng.choice((limit, 512, 10**30))
    modules = [module("Transformer", ""), module("Pooling", "1_Pooling")]
    contents.files = {
        "config.json": config,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": tokenizer_config,
        POOLING_CONFIG: _pooling_config(pooling, size, rng),
        MODULES: modules,
    }
    prompts = rule.prompts if case.community else rng.choice(({}, {"query": "the ledger: ", "document": "ships "}))
    contents.files["config_sentence_transformers.json"] = {"prompts": dict(prompts), "default_prompt_name": None}
    if not in_tokenizer:
        contents.files["sentence_bert_config.json"] = {"max_seq_length": limit, "do_lower_case": False}
    if case.community:
        for number in range(rule.dense_layers):
            identity = "torch.nn.modules.linear.Identity"
            given = {"seed": case.seed + number, "bias": False, "activation": identity, "extra": {}, "position": 2}
            edits.apply(Edit("add_dense", "", "", given, True), contents)
    modules.append(module("Normalize", f"{len(modules)}_Normalize"))
    numbered(modules)
    return contents


def _pooling_config(mode: str, size: int, rng: Random) -> dict[str, Any]:
    if rng.random() < 0.5:  # of sentence-transformers 5
        return {"embedding_dimension": size, "pooling_mode": mode, "include_prompt": True}
    flags = {f"pooling_mode_{flag}": name == mode for name, flag in _FLAGS.items()}
    return {"word_embedding_dimension": size, **flags}


def describe(case: Case) -> str:
    """Return a line for a person: the model and its edits."""
    model = "+".join(dict.fromkeys(case.model))
    kind = " without sentence-transformers' files" if case.community else ""
    return f"{model}{kind}, seed {case.seed}: {'; '.join(map(str, case.edits)) or 'no edits'}"
