"""The record of an architecture: its encoder, the keys of its config.json, and its publisher's documented rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from akidb_mlx.checkpoint.architectures.common_keys import READ, RERANKER_KEYS
from akidb_mlx.checkpoint.architectures.config import EncoderConfig
from akidb_mlx.checkpoint.head import Dense, Head, Pooling, PoolingMode
from akidb_mlx.checkpoint.known_keys import KnownKeys, Only

# Describes a classifier, for a configuration of the encoder and a number of labels.
Classifier = Callable[[Any, int], Head]


@dataclass(frozen=True)
class MaskedHead:
    """The layers that make a logit for each token of the vocabulary of each token's vector.

    Attributes:
        dense: the name of a linear layer that keeps the size.
        norm: the name of the layer norm after it.
        output: the name of a linear layer with an output for each token of the vocabulary. Its weight may be the table
            of token vectors, and is not stored then.
        table: the name of that table.
        bias: another name of the output's bias; None where it has one only.
        activation: the key of config.json that names the function between the first two layers; None for GELU.
        eps: the attribute of the encoder's configuration that holds the epsilon of the norm.
        biases: the keys of config.json that say whether there is a bias, with their defaults, by the bias's name.
    """

    dense: str
    norm: str
    output: str
    table: str = "embeddings.word_embeddings"
    bias: str | None = None
    activation: str | None = None
    eps: str = "layer_norm_eps"
    biases: Mapping[str, tuple[str, bool]] = field(default_factory=dict)


# The head of RoBERTa and of those that follow it.
ROBERTA_HEAD = MaskedHead("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", bias="lm_head.bias")


@dataclass(frozen=True)
class Architecture:
    """All that is known of one `model_type` before a checkpoint is read.

    Community conversions often lose the sentence-transformers files; the documented rules decide then. A rule that is
    None means that there is none; a checkpoint without one of its own is refused.

    Attributes:
        encoder: the class that computes token vectors, as "module:Class" in a backend's `encoders/`.
        config: the keys of its config.json that are read, with their types and defaults.
        only: keys of config.json that would change the vectors, with the values that are supported.
        harmless: keys of config.json that change no vector whatever their value, with the reason.
        wrapper: the keys of a config.json that describes the encoder in its object `text_config`, beside towers for
            images and sounds; None where config.json is the encoder's own.
        ruled: whether the publisher's rules, from `pooling` to `matryoshka` and `original`, are for a model with such a
            configuration.
        pooling: how the model's publisher pools, or None.
        dense_layers: how many Dense layers, without activation, follow the pooling.
        prompts: the prompts its publisher documents, by name.
        final_token: the token that must end every text, for last-token pooling.
        matryoshka: whether the published embedding models were trained for shorter vectors.
        float16_overflows: whether activations leave the range of float16.
        prefixes: strings that may precede a tensor's name.
        renames: parts of tensors' names, and the standard architecture's names for them.
        unused: tensors, by the start of their name, that are no part of token vectors and are not read.
        own_code: the publisher's classes, named in auto_map as "module.Class", that compute what the encoder does.
        own_code_flag: the key of config.json that must be true where `own_code` is named; None for none.
        original: the publisher's repository, for a person who lacks some of its files.
        classifier: the head of its models for sequence classification, which a reranker may be; None where it is not
            read.
        language_head: the layer that gives the logits of its causal language models, which a reranker may be; None
            where they are not read.
        masked_head: the layers of its models of masked words, which a sparse model has; None where they are not read.
    """

    encoder: str
    config: type[EncoderConfig]
    only: Mapping[str, Only]
    harmless: Mapping[str, str]
    wrapper: KnownKeys | None = None
    ruled: Callable[[EncoderConfig], bool] = lambda _: True
    pooling: PoolingMode | None = None
    dense_layers: int = 0
    prompts: dict[str, str] = field(default_factory=dict)
    final_token: str | None = None
    matryoshka: bool = False
    float16_overflows: bool = False
    prefixes: tuple[str, ...] = ("model.",)
    renames: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    own_code: tuple[str, ...] = ()
    own_code_flag: str | None = None
    original: str | None = None
    classifier: Classifier | None = None
    language_head: str | None = None
    masked_head: MaskedHead | None = None

    @cached_property
    def keys(self) -> KnownKeys:
        """Return the keys that its config.json may hold."""
        read = (READ | self.config.keys()) - self.only.keys()
        harmless = {key: reason for key, reason in self.harmless.items() if key not in read}
        return KnownKeys(read, self.only, harmless)

    @cached_property
    def reranker_keys(self) -> KnownKeys:
        """Return the keys that its config.json may hold in a reranker."""
        only = {key: rule for key, rule in self.only.items() if key not in RERANKER_KEYS}
        return KnownKeys(self.keys.honoured | RERANKER_KEYS, only, self.keys.harmless)

    def for_config(self, config: EncoderConfig) -> Architecture:
        """Return this record, without the publisher's rules where they are not for a model with that configuration."""
        if self.ruled(config):
            return self
        return replace(
            self, pooling=None, dense_layers=0, prompts={}, final_token=None, matryoshka=False, original=None
        )

    def tensor_name(self, stored: str) -> str:
        """Return the encoder's name for a tensor that is stored as `stored`."""
        prefix = next((prefix for prefix in self.prefixes if stored.startswith(prefix)), "")
        name = stored[len(prefix) :]
        for part, standard in self.renames.items():
            name = name.replace(part, standard)
        return name

    def layer_name(self, stored: str) -> str:
        """Return the encoder's name for a layer whose tensors' names begin with `stored`."""
        return self.tensor_name(f"{stored}.").removesuffix(".")


def first_token_classifier(dense: str, activation: str, output: str) -> Classifier:
    """Return the most common classifier: two linear layers on the first token's vector.

    Args:
        dense: the name of the layer that keeps the size.
        activation: the function after it, by the name of its class in torch.nn.
        output: the name of the layer with an output for each label.
    """

    def describe(config: EncoderConfig, labels: int) -> Head:
        return Head(Pooling(("cls",)), (Dense(dense, config.hidden_size, activation), Dense(output, labels)))

    return describe
