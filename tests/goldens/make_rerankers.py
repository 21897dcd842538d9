"""Make tiny random rerankers beside this file, and their scores, with sentence-transformers.

Run with sentence-transformers installed: python -m tests.goldens.make_rerankers [NAME...].
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MAX_TOKENS = 64
PROMPTS = {"news": "Which headline fits? ", "web": "query: "}
CHAT_TEMPLATE = """\
{%- set system = messages | selectattr("role", "eq", "system") | map(attribute="content") | first -%}
<|im_start|>system
{{ system or "Does the document answer?" }}<|im_end|>
<|im_start|>user
<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}<|im_end|>
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# The first lines of Qwen3's own template; it knows no roles of a pair.
PLAIN_TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}{% endfor %}"


def pairs() -> list[tuple[str, str]]:
    """Return pairs of short, long and empty texts in many scripts; several have the same query."""
    texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))["texts"]
    longest = max(texts, key=len)
    others = [(texts[index], texts[(7 * index + 3) % len(texts)]) for index in range(len(texts))]
    same = [("What is the capital?", text) for text in texts[::4]]
    return [*others, *same, ("", ""), ("", texts[0]), (texts[0], ""), (longest, longest), (texts[1], longest * 2)]


def _save(name: str, model: Any, donor: str, post_processor: Any, **config: Any) -> Path:
    """Write a transformers model with every parameter changed, and a tokenizer."""
    import torch

    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    model.float().save_pretrained(out)
    tokenizer = json.loads((HERE / donor / "tokenizer.json").read_text(encoding="utf-8"))
    if post_processor is not None:
        tokenizer["post_processor"] = post_processor
    if donor == "tiny-qwen3":
        token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        size = len(tokenizer["model"]["vocab"])
        known = tokenizer["model"]["vocab"]
        for answer in ("yes", "no", "1"):
            if answer not in known:
                tokenizer["added_tokens"].append({"id": size, "content": answer, **token})
                size += 1
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((HERE / donor / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"model_max_length": MAX_TOKENS} | config
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return out


def _change(out: Path, **values: Any) -> None:
    path = out / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values, indent=2), encoding="utf-8")


def _template(begin: str, end: str, ids: tuple[int, int]) -> dict[str, Any]:
    """Return RoBERTa's post-processor with other special tokens."""
    special = [{"SpecialToken": {"id": token, "type_id": 0}} for token in (begin, end)]
    text = [{"Sequence": {"id": one, "type_id": 0}} for one in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": [special[0], text[0], special[1]],
        "pair": [special[0], text[0], special[1], special[1], text[1], special[1]],
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]}
            for token, number in zip((begin, end), ids, strict=True)
        },
    }


_SIZES = {
    "vocab_size": 615,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def bert(name: str) -> Any:
    """As ms-marco-MiniLM: transformers' files only, one label, the activation in config.json's older key."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(**_SIZES, max_position_embeddings=MAX_TOKENS, num_labels=1)
    out = _save(name, BertForSequenceClassification(config), "tiny-bert", None, tokenizer_class="BertTokenizer")
    _change(out, sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    return _cross_encoder(out)


def bert_labels(name: str) -> Any:
    """As CrossEncoder saves: modules.json, three labels, an activation, prompts of which one is the default."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(**_SIZES, max_position_embeddings=96, num_labels=3)
    out = _save(name, BertForSequenceClassification(config), "tiny-bert", None, tokenizer_class="BertTokenizer")
    return _resaved(out, "Tanh", prompts=PROMPTS, default_prompt_name="web")


def roberta(name: str) -> Any:
    """Two separators, two labels, the activation in config.json's newer key."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(**_SIZES, max_position_embeddings=80, type_vocab_size=1, pad_token_id=0, num_labels=2)
    processor = {
        "type": "RobertaProcessing",
        "sep": ["[SEP]", 3],
        "cls": ["[CLS]", 2],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    out = _save(name, RobertaForSequenceClassification(config), "tiny-bert", processor, truncation_side="left")
    _change(out, sentence_transformers={"activation_fn": "torch.nn.modules.activation.Softmax", "version": "5.0.0"})
    return _cross_encoder(out)


def roberta_class(name: str) -> Any:
    """The class RobertaTokenizer, which frames pairs whatever tokenizer.json says."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    sizes = _SIZES | {"vocab_size": 910, "hidden_size": 24}
    config = RobertaConfig(**sizes, max_position_embeddings=80, type_vocab_size=1, pad_token_id=0, num_labels=1)
    special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}
    model = RobertaForSequenceClassification(config)
    return _cross_encoder(_save(name, model, "tiny-qwen3", None, tokenizer_class="RobertaTokenizer", **special))


def xlm_roberta(name: str) -> Any:
    """As bge-reranker-base: two separators by a template, one label, no activation named."""
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    config = XLMRobertaConfig(**_SIZES, max_position_embeddings=80, type_vocab_size=1, pad_token_id=0, num_labels=1)
    processor = _template("[CLS]", "[SEP]", (2, 3))
    return _cross_encoder(_save(name, XLMRobertaForSequenceClassification(config), "tiny-bert", processor))


def distilbert(name: str) -> Any:
    """A rectifier in the head, and no token types."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=615, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=96, num_labels=1
    )
    out = _save(name, DistilBertForSequenceClassification(config), "tiny-bert", None)
    return _cross_encoder(out)


_MODERN_SIZES = _SIZES | {"hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 32, "local_attention": 16}
_MODERN_TOKENS: dict[str, Any] = dict.fromkeys(
    ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0
)
# The tokenizer of an architecture without token types.
_UNTYPED: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "attention_mask"],
}


def modernbert(name: str) -> Any:
    """As gte-reranker-modernbert: the mean of the tokens, a layer and a norm without biases."""
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    config = ModernBertConfig(
        **_MODERN_SIZES, **_MODERN_TOKENS, max_position_embeddings=96, classifier_pooling="mean", num_labels=1
    )
    return _cross_encoder(_save(name, ModernBertForSequenceClassification(config), "tiny-bert", None, **_UNTYPED))


def modernbert_labels(name: str) -> Any:
    """The first token, another activation, every bias, another epsilon, several labels."""
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    config = ModernBertConfig(
        **_MODERN_SIZES,
        **_MODERN_TOKENS,
        max_position_embeddings=96,
        classifier_activation="silu",
        classifier_bias=True,
        norm_bias=True,
        norm_eps=1e-2,
        num_labels=3,
    )
    return _cross_encoder(_save(name, ModernBertForSequenceClassification(config), "tiny-bert", None, **_UNTYPED))


def modernbert_modules(name: str) -> Any:
    """As ettin-reranker: the head as modules of sentence-transformers."""
    import torch
    from sentence_transformers.cross_encoder.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(**_MODERN_SIZES, **_MODERN_TOKENS, max_position_embeddings=96)
    out = _save(name, ModernBertModel(config), "tiny-bert", None, **_UNTYPED)
    modules = [
        Pooling(24, "cls"),
        Dense(24, 24, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(24),
        Dense(24, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    return _with_modules(out, modules)


def bert_modules(name: str) -> Any:
    """Several poolings side by side, a residual, a normalisation, an activation of the scores, prompts."""
    import torch
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.cross_encoder.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Dropout, Pooling
    from transformers import BertConfig, BertModel

    config = BertConfig(**_SIZES | {"hidden_size": 24}, max_position_embeddings=96)
    model = BertModel(config, add_pooling_layer=False)
    out = _save(name, model, "tiny-bert", None, tokenizer_class="BertTokenizer")
    modules = [
        Pooling(24, ("mean", "cls")),
        Dense(48, 16, use_residual=True),
        Normalize(),
        Dropout(0.5),
        Dense(16, 2, module_output_name="scores"),
    ]
    return _with_modules(out, modules, activation_fn=torch.nn.Softmax(), prompts=PROMPTS, default_prompt_name="news")


def gte(name: str) -> Any:
    """As gte-multilingual-reranker, with token types."""
    from transformers import GteConfig, GteForSequenceClassification

    config = GteConfig(**_SIZES, max_position_embeddings=96, type_vocab_size=2, num_labels=1)
    out = _save(name, GteForSequenceClassification(config), "tiny-bert", None, tokenizer_class="BertTokenizer")
    return _cross_encoder(out)


def nomic_bert(name: str) -> Any:
    """Token types, and two labels."""
    from transformers import NomicBertConfig, NomicBertForSequenceClassification

    config = NomicBertConfig(**_SIZES, max_position_embeddings=96, type_vocab_size=2, num_labels=2)
    out = _save(name, NomicBertForSequenceClassification(config), "tiny-bert", None, tokenizer_class="BertTokenizer")
    return _cross_encoder(out)


def mpnet(name: str) -> Any:
    """Two separators; the head is RoBERTa's."""
    from transformers import MPNetConfig, MPNetForSequenceClassification

    config = MPNetConfig(**_SIZES, max_position_embeddings=80, num_labels=1)
    processor = _template("[CLS]", "[SEP]", (2, 3))
    return _cross_encoder(_save(name, MPNetForSequenceClassification(config), "tiny-bert", processor, **_UNTYPED))


def _qwen3(name: str, tied: bool, size: int, **config: Any) -> Path:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=896,
            hidden_size=size,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=48,
            max_position_embeddings=512,
            tie_word_embeddings=tied,
        )
    )
    return _save(
        name,
        model,
        "tiny-qwen3",
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        **config,
    )


def qwen3(name: str) -> Any:
    """As Qwen3-Reranker: transformers' files only, and scores as its model card computes them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = _qwen3(name, True, 24, chat_template=PLAIN_TEMPLATE, model_max_length=256)
    tokenizer = AutoTokenizer.from_pretrained(out, padding_side="left", local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    prefix, suffix = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
            'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        )
    )
    answers = [tokenizer.convert_tokens_to_ids(answer) for answer in ("no", "yes")]
    most = 256 - len(prefix) - len(suffix)

    def score(pairs: list[tuple[str, str]], instruction: str | None) -> Any:
        task = instruction or "Given a web search query, retrieve relevant passages that answer the query"
        scores = []
        for query, document in pairs:
            text = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}"
            body = tokenizer(text, truncation="longest_first", max_length=most, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prefix + body + suffix])).logits[0, -1]
            scores.append(torch.nn.functional.log_softmax(logits[answers], dim=0)[1].exp().item())
        return scores

    return score


def qwen3_logit_score(name: str) -> Any:
    """As CrossEncoder saves: LogitScore on a layer of its own, a chat template with the roles of a pair."""
    return _logit_score(_qwen3(name, False, 16), {"true_token_id": 894, "false_token_id": 265})


def qwen3_one_token(name: str) -> Any:
    """As zerank-2: the logit of one token is the score."""
    return _logit_score(_qwen3(name, False, 16), {"true_token_id": 266, "false_token_id": None})


def qwen2_logit_score(name: str) -> Any:
    """As mxbai-rerank-v2: two answers and a template of its own, on the table of words."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=896,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    pre_tokenizer = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    out = _save(name, Qwen2ForCausalLM(config), "tiny-qwen3", pre_tokenizer)
    return _logit_score(out, {"true_token_id": 266, "false_token_id": 265})


def _logit_score(out: Path, tokens: dict[str, int | None]) -> Any:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import LogitScore, Transformer

    transformer = Transformer(
        str(out),
        transformer_task="text-generation",
        processor_kwargs={"chat_template": CHAT_TEMPLATE, "model_max_length": 128},
        processing_kwargs={"chat_template": {"add_generation_prompt": True}},
    )
    model = CrossEncoder(
        modules=[transformer, LogitScore(**tokens)], prompts=PROMPTS, default_prompt_name="web", device="cpu"
    )
    shutil.rmtree(out)
    model.save_pretrained(str(out), create_model_card=False)
    return _cross_encoder(out)


def _with_modules(out: Path, modules: list[Any], **arguments: Any) -> Any:
    """Put modules after the Transformer, with every parameter changed."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import Transformer

    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model = CrossEncoder(modules=[Transformer(str(out)), *modules], device="cpu", **arguments)
    shutil.rmtree(out)
    model.save_pretrained(str(out), create_model_card=False)
    return _cross_encoder(out)


def _resaved(out: Path, activation: str, **arguments: Any) -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        str(out), device="cpu", local_files_only=True, activation_fn=getattr(torch.nn, activation)(), **arguments
    )
    shutil.rmtree(out)
    model.save_pretrained(str(out), create_model_card=False)
    return _cross_encoder(out)


def _cross_encoder(out: Path) -> Any:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(out), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"})
    return lambda pairs, prompt: model.predict(pairs, prompt=prompt, batch_size=1)


MODELS: dict[str, Callable[[str], Any]] = {
    "reranker-bert": bert,
    "reranker-bert-labels": bert_labels,
    "reranker-roberta": roberta,
    "reranker-roberta-class": roberta_class,
    "reranker-xlm-roberta": xlm_roberta,
    "reranker-distilbert": distilbert,
    "reranker-modernbert": modernbert,
    "reranker-modernbert-labels": modernbert_labels,
    "reranker-modernbert-modules": modernbert_modules,
    "reranker-bert-modules": bert_modules,
    "reranker-gte": gte,
    "reranker-nomic-bert": nomic_bert,
    "reranker-mpnet": mpnet,
    "reranker-qwen3": qwen3,
    "reranker-qwen3-logit-score": qwen3_logit_score,
    "reranker-qwen3-one-token": qwen3_one_token,
    "reranker-qwen2-logit-score": qwen2_logit_score,
}


def main() -> None:
    """Make the rerankers that are named, or all."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    for name in sys.argv[1:] or MODELS:
        score = MODELS[name](name)
        arrays = {
            key: np.asarray(score(pairs(), prompt), np.float32)
            for key, prompt in {"default": None, "own": "Answer in English: "}.items()
        }
        np.savez(HERE / f"{name}.npz", **arrays)
        print(name, {key: (array.shape, array.min(), array.max(), array.std()) for key, array in arrays.items()})


if __name__ == "__main__":
    main()
