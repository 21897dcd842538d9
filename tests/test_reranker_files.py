"""The files of a reranker: read as CrossEncoder reads them, or refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from akidb_mlx import EmbeddingService, Reranker
from akidb_mlx.checkpoint.architectures import ARCHITECTURES
from akidb_mlx.checkpoint.architectures.config import parse_config
from akidb_mlx.checkpoint.pairs import pair_tokenizer
from akidb_mlx.checkpoint.reranker import read_reranker
from akidb_mlx.checkpoint.tokenization.frame import PairFrame, read_pair_frame
from akidb_mlx.errors import ModelLoadError
from tests.goldens.make_rerankers import PLAIN_TEMPLATE, pairs
from tests.support import GOLDENS, copy_model, edit_json, edit_tensors, golden

PAIRS = pairs()


def refusal(directory):
    with pytest.raises(ModelLoadError) as failure, Reranker(directory, device="cpu"):
        pass
    return str(failure.value)


def largest_difference(directory, name):
    with Reranker(directory, device="cpu") as reranker:
        return np.abs(reranker.scores(PAIRS) - golden(name)["default"]).max()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("reranker-bert", "classifier"),
        ("reranker-bert-labels", "model_type = "),
        ("reranker-roberta", "sentence_transformers = "),
        ("reranker-xlm-roberta", "classifier"),
        ("reranker-distilbert", "classifier"),
        ("reranker-modernbert", "classifier"),
        ("reranker-gte", "classifier"),
        ("reranker-bert-modules", "akidb_mlx.Reranker"),
        ("reranker-qwen3", "it may be a chat model or a reranker"),
        ("reranker-qwen3-logit-score", "lm_head"),
    ],
)
def test_an_embedding_service_refuses_a_reranker_and_names_its_class(name, found, tmp_path):
    directory = copy_model(name, tmp_path, sbert_ce_default_activation_function=None)
    if name == "reranker-qwen3-logit-score":
        shutil.rmtree(directory / "1_LogitScore")
        for file in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
            (directory / file).unlink()
    with pytest.raises(ModelLoadError, match=r"akidb_mlx\.Reranker") as failure:
        EmbeddingService(directory, device="cpu")
    assert found in str(failure.value)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-qwen3", "tiny-roberta"])
def test_a_reranker_refuses_an_embedding_model_and_names_its_class(name):
    assert "akidb_mlx.EmbeddingService" in refusal(GOLDENS / name)


def test_an_encoder_without_sentence_transformers_files_is_no_reranker(tmp_path):
    directory = copy_model("tiny-bert", tmp_path)
    (directory / "modules.json").unlink()
    assert "is not a reranker: it has no classifier.weight" in refusal(directory)


def test_a_causal_embedding_model_is_no_reranker(tmp_path):
    """Its tokenizer ends every text with the token that embedding models of its architecture need."""
    directory = copy_model("tiny-qwen3", tmp_path, architectures=["Qwen3ForCausalLM"])
    (directory / "modules.json").unlink()
    assert "is an embedding model" in refusal(directory)


def test_an_architecture_without_rerankers(tmp_path):
    directory = copy_model("tiny-gemma3", tmp_path)
    (directory / "modules.json").unlink()
    assert "rerankers of the architecture gemma3_text are not supported" in refusal(directory)


class TestActivation:
    def of(self, directory):
        return read_reranker(directory).scoring.activation

    def test_the_first_that_is_stated_counts(self, tmp_path):
        older = "sbert_ce_default_activation_function"
        newer = {"activation_fn": "torch.nn.modules.activation.Tanh"}
        directory = copy_model("reranker-bert-labels", tmp_path, **{older: "torch.nn.Sigmoid"})
        config = directory / "config_sentence_transformers.json"
        assert self.of(directory) == "Tanh"
        edit_json(config, activation_fn="torch.nn.ReLU")
        assert self.of(directory) == "ReLU"
        edit_json(config, activation_fn=None)
        assert self.of(directory) == "Sigmoid"
        edit_json(directory / "config.json", sentence_transformers=newer)
        assert self.of(directory) == "Tanh"

    @pytest.mark.parametrize(("name", "default"), [("reranker-bert", "Sigmoid"), ("reranker-bert-labels", "Identity")])
    def test_the_default_depends_on_the_number_of_labels(self, name, default, tmp_path):
        directory = copy_model(name, tmp_path, sbert_ce_default_activation_function=None)
        if name == "reranker-bert-labels":
            edit_json(directory / "config_sentence_transformers.json", activation_fn=None)
        assert self.of(directory) == default

    @pytest.mark.parametrize(
        "name", ["torch.nn.PReLU", "torch.nn.modules.linear.Linear", "os.system", "mine.Sigmoid", "Sigmoid", 7]
    )
    def test_others_are_refused_by_name(self, name, tmp_path):
        directory = copy_model("reranker-bert", tmp_path, sbert_ce_default_activation_function=name)
        assert f"activation {name!r} is not supported" in refusal(directory)


@pytest.mark.parametrize(
    ("name", "file", "changes", "message"),
    [
        ("reranker-bert", "config.json", {"id2label": {"0": "a", "1": "b"}}, "says that there are 2 labels"),
        ("reranker-bert", "config.json", {"id2label": ["a"]}, "id2label must be an object"),
        ("reranker-bert", "config.json", {"id2label": None, "num_labels": "1"}, "num_labels must be a number"),
        ("reranker-bert", "config.json", {"sentence_transformers": 7}, "sentence_transformers must be an object"),
        ("reranker-bert", "config.json", {"sentence_transformers": {"x": 1}}, "sentence_transformers.x is not a key"),
        ("reranker-bert", "config.json", {"is_decoder": True}, "is_decoder"),
        ("reranker-bert", "config.json", {"unheard_of": 1}, "unheard_of"),
        ("reranker-bert-labels", "config_sentence_transformers.json", {"unheard_of": 1}, "unheard_of"),
        (
            "reranker-bert-labels",
            "config_sentence_transformers.json",
            {"model_type": "SparseEncoder"},
            "not a reranker",
        ),
        (
            "reranker-bert-labels",
            "config_sentence_transformers.json",
            {"default_prompt_name": "x"},
            "none of its prompts",
        ),
        ("reranker-bert-labels", "config_sentence_transformers.json", {"prompts": {"a": 1}}, "prompts must map"),
        ("reranker-bert-labels", "sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task"),
        ("reranker-bert-labels", "sentence_bert_config.json", {"processing_kwargs": {"text": {"x": 1}}}, "text"),
        ("reranker-bert-labels", "sentence_bert_config.json", {"modality_config": {"message": {}}}, "chat template"),
        ("reranker-bert-labels", "sentence_bert_config.json", {"query_length": 9}, "query_length"),
        ("reranker-bert", "tokenizer_config.json", {"chat_template": "x"}, "chat template"),
        ("reranker-bert", "tokenizer_config.json", {"model_input_names": 7}, "model_input_names must be a list"),
        ("reranker-qwen3", "config.json", {"tie_word_embeddings": "yes"}, "tie_word_embeddings must be"),
        ("reranker-qwen3", "config.json", {"tie_word_embeddings": False}, "lm_head.weight, which gives"),
        ("reranker-qwen3-logit-score", "1_LogitScore/config.json", {"true_token_id": 896}, "the model has 896"),
        ("reranker-qwen3-logit-score", "1_LogitScore/config.json", {"true_token_id": None}, "must be tokens"),
        ("reranker-qwen3-logit-score", "1_LogitScore/config.json", {"false_token_id": -1}, "must be tokens"),
        ("reranker-qwen3-logit-score", "1_LogitScore/config.json", {"module_input_name": "x"}, "module_input_name"),
        ("reranker-modernbert", "config.json", {"classifier_activation": "gelu_new"}, "'gelu_new' is not supported"),
        ("reranker-modernbert", "config.json", {"classifier_pooling": "max"}, "classifier_pooling = 'max'"),
        ("reranker-modernbert", "config.json", {"classifier_bias": True}, "head.dense.bias is missing"),
        ("reranker-modernbert-labels", "config.json", {"classifier_bias": False}, "head.dense.bias is not part"),
        ("reranker-modernbert-labels", "config.json", {"norm_bias": False}, "norm.bias is not part"),
        (
            "reranker-modernbert-modules",
            "4_Dense/config.json",
            {"module_output_name": "sentence_embedding"},
            "must have module_output_name 'scores', found 'sentence_embedding'",
        ),
        ("reranker-modernbert-modules", "4_Dense/config.json", {"module_output_name": None}, "found None"),
        ("reranker-modernbert-modules", "2_Dense/config.json", {"module_output_name": "scores"}, "module_output_name"),
        ("reranker-modernbert-modules", "4_Dense/config.json", {"module_input_name": "x"}, "module_input_name"),
        ("reranker-modernbert-modules", "2_Dense/config.json", {"bias": True}, "dense.0.bias says otherwise"),
        ("reranker-modernbert-modules", "4_Dense/config.json", {"bias": False}, "dense.1.bias says otherwise"),
        ("reranker-modernbert-modules", "4_Dense/config.json", {"out_features": 2}, "out_features is 2"),
        ("reranker-modernbert-modules", "1_Pooling/config.json", {"include_prompt": False}, "include_prompt = false"),
        ("reranker-modernbert-modules", "sentence_bert_config.json", {"module_output_name": "x"}, "module_output_name"),
        (
            "reranker-modernbert-modules",
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
            "pooler_output",
        ),
        (
            "reranker-modernbert-modules",
            "sentence_bert_config.json",
            {"modality_config": {"message": {"method": "forward"}}},
            "chat template",
        ),
        (
            "reranker-qwen3-logit-score",
            "sentence_bert_config.json",
            {"processing_kwargs": {"chat_template": {"restore_suffix": False}}},
            "restore_suffix",
        ),
        (
            "reranker-qwen3-logit-score",
            "sentence_bert_config.json",
            {"processing_kwargs": {"chat_template": {"max_length": 9}}},
            "max_length",
        ),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(name, file, changes, message, tmp_path):
    directory = copy_model(name, tmp_path)
    edit_json(directory / file, **changes)
    assert message in refusal(directory)


@pytest.mark.parametrize(
    "kinds",
    [
        "Transformer, Dense",
        "Transformer, Pooling",
        "Transformer, Pooling, Dense, Normalize",
        "Transformer, Pooling, CNN, Dense",
        "Transformer, LogitScore, Dense",
        "Pooling",
    ],
)
def test_modules_of_other_kinds_are_refused(kinds, tmp_path):
    directory = copy_model("reranker-bert-modules", tmp_path)
    entries = [{"path": "", "type": f"sentence_transformers.models.{kind}"} for kind in kinds.split(", ")]
    (directory / "modules.json").write_text(json.dumps(entries))
    assert f"lists {kinds}; supported in a reranker" in refusal(directory)


def test_a_transformer_in_a_folder_of_its_own_is_refused(tmp_path):
    directory = copy_model("reranker-bert-modules", tmp_path)
    entries = json.loads((directory / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    (directory / "modules.json").write_text(json.dumps(entries))
    assert "in the model directory itself" in refusal(directory)


def test_an_ordinary_configuration_of_a_classifier_is_let_through():
    """As those of gte-reranker-modernbert and granite-embedding-reranker."""
    config = {
        "architectures": ["ModernBertForSequenceClassification"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 50281,
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "classifier_dropout": 0.0,
        "classifier_pooling": "mean",
        "cls_token_id": 50281,
        "decoder_bias": True,
        "deterministic_flash_attn": False,
        "embedding_dropout": 0.0,
        "eos_token_id": 50282,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "gradient_checkpointing": False,
        "hidden_activation": "gelu",
        "hidden_size": 768,
        "id2label": {"0": "LABEL_0"},
        "initializer_cutoff_factor": 2.0,
        "initializer_range": 0.02,
        "intermediate_size": 1152,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-05,
        "local_attention": 128,
        "local_rope_theta": 10000.0,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "mlp_dropout": 0.0,
        "model_type": "modernbert",
        "norm_bias": False,
        "norm_eps": 1e-05,
        "num_attention_heads": 12,
        "num_hidden_layers": 22,
        "pad_token_id": 50283,
        "position_embedding_type": "absolute",
        "repad_logits_with_grad": False,
        "sep_token_id": 50282,
        "sparse_pred_ignore_index": -100,
        "sparse_prediction": False,
        "torch_dtype": "float16",
        "transformers_version": "4.48.0",
        "vocab_size": 50368,
    }
    architecture = ARCHITECTURES["modernbert"]
    architecture.reranker_keys.check(Path("config.json"), config)
    head = architecture.classifier(parse_config(architecture.config, config), 1)
    assert head.pooling.modes == ("mean",)
    dense, norm, output = head.modules
    assert (dense.name, dense.activation, dense.bias) == ("head.dense", "GELU", False)
    assert (norm.name, norm.eps, norm.bias) == ("head.norm", 1e-5, False)
    assert (output.name, output.outputs, output.bias) == ("classifier", 1, True)


def test_modules_have_numbered_labels_and_name_their_source():
    scoring = read_reranker(GOLDENS / "reranker-bert-modules").scoring
    assert (scoring.label_names, scoring.activation) == (("LABEL_0", "LABEL_1"), "Softmax")
    assert (scoring.source, scoring.default_prompt) == ("5_Dense", "news")


def test_a_head_beside_modules_is_refused(tmp_path):
    directory = copy_model("reranker-bert-modules", tmp_path)
    edit_tensors(directory / "model.safetensors", lambda tensors: {**tensors, "classifier.bias": np.zeros(2)})
    assert "classifier.bias belongs to the head of" in refusal(directory)


def test_another_head_is_refused(tmp_path):
    directory = copy_model("reranker-bert", tmp_path)
    edit_tensors(directory / "model.safetensors", lambda tensors: {**tensors, "cls.predictions.bias": np.zeros(2)})
    assert "cls.predictions.bias belongs to the head of" in refusal(directory)


def test_a_missing_layer_of_the_head_is_named(tmp_path):
    directory = copy_model("reranker-bert", tmp_path)
    edit_tensors(
        directory / "model.safetensors", lambda tensors: {k: v for k, v in tensors.items() if "pooler" not in k}
    )
    assert "pooler.dense.weight is missing" in refusal(directory)


class TestChatTemplate:
    def change(self, tmp_path, template):
        directory = copy_model("reranker-qwen3-logit-score", tmp_path)
        (directory / "chat_template.jinja").write_text(template)
        return directory

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            (PLAIN_TEMPLATE.replace("message.content", "''"), "ignores messages of the role 'query'"),
            (
                "{% for m in messages %}{% if m.role == 'query' %}{{ m.content }}{% endif %}{% endfor %}",
                "role 'document'",
            ),
            ("{% for m in messages %}", "cannot be used for pairs"),
            ("{{ raise_exception('no pairs') }}", "no pairs"),
            ("{{ messages.__class__.__mro__ }}", "cannot be used for pairs"),
        ],
    )
    def test_one_that_cannot_carry_a_pair(self, template, message, tmp_path):
        assert message in refusal(self.change(tmp_path, template))

    def test_a_missing_one(self, tmp_path):
        directory = copy_model("reranker-qwen3-logit-score", tmp_path)
        (directory / "chat_template.jinja").unlink()
        assert "chat_template.jinja, which makes one text of a pair, is missing" in refusal(directory)

    def test_structured_messages(self, tmp_path):
        """The same template for contents that are lists of parts gives the same scores."""
        source = (GOLDENS / "reranker-qwen3-logit-score" / "chat_template.jinja").read_text()
        directory = self.change(tmp_path, source.replace('map(attribute="content")', 'map(attribute="content.0.text")'))
        edit_json(
            directory / "sentence_bert_config.json",
            modality_config={"message": {"method": "forward", "method_output_name": "logits", "format": "structured"}},
        )
        assert largest_difference(directory, "reranker-qwen3-logit-score") < 1e-5

    def test_jinja_is_asked_for_by_name(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "jinja2.sandbox", None)
        assert "pip install 'akidb-mlx[rerank]'" in refusal(GOLDENS / "reranker-qwen3-logit-score")


def test_a_stored_output_layer_counts_though_the_table_is_tied(tmp_path):
    """As transformers 5 does with two layers that differ."""
    directory = copy_model("reranker-qwen3-logit-score", tmp_path, tie_word_embeddings=True)
    assert largest_difference(directory, "reranker-qwen3-logit-score") < 1e-5


def test_a_file_that_cross_encoder_does_not_read_without_modules_does_not_count(tmp_path):
    directory = copy_model("reranker-bert", tmp_path)
    edit_json(directory / "sentence_bert_config.json", max_seq_length=8, do_lower_case=True)
    edit_json(directory / "config_sentence_transformers.json", default_prompt_name="a", prompts={"a": "b"})
    assert largest_difference(directory, "reranker-bert") < 1e-5


class TestPairFrames:
    def frame(self, directory):
        tokenizer = pair_tokenizer(read_reranker(directory))
        pair = tokenizer([("hello", "world world")], "", "error")[0]
        return pair.windows[0].tolist(), pair.segments[0]

    @pytest.mark.parametrize(
        ("changes", "segment"),
        [
            ({}, 3),
            ({"model_input_names": ["input_ids", "attention_mask"]}, 0),
            ({"tokenizer_class": "DistilBertTokenizer"}, 0),
            ({"tokenizer_class": "PreTrainedTokenizerFast"}, 0),
            (
                {
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
                },
                3,
            ),
        ],
    )
    def test_types_are_those_that_the_model_is_told(self, changes, segment, tmp_path):
        directory = copy_model("reranker-bert", tmp_path)
        edit_json(directory / "tokenizer_config.json", **changes)
        ids, found = self.frame(directory)
        first = len(ids) - 1 - ids[::-1].index(3, 1)
        assert (ids[0], ids[-1], ids.count(3)) == (2, 3, 2)
        assert found == (ids.index(3) + 1 if segment else 0), first

    def test_types_beyond_the_table_are_refused(self, tmp_path):
        directory = copy_model("reranker-bert", tmp_path, type_vocab_size=1)
        assert "the second text of a pair is of the second token type" in refusal(directory)

    def template(self, *pieces):
        parts = [
            {"Sequence": {"id": one, "type_id": kind}}
            if one in "AB"
            else {"SpecialToken": {"id": one, "type_id": kind}}
            for one, kind in pieces
        ]
        return {"type": "TemplateProcessing", "pair": parts, "special_tokens": {"s": {"ids": [7]}, "t": {"ids": [8]}}}

    @pytest.mark.parametrize(
        ("processor", "frame"),
        [
            (None, PairFrame(first_type=0)),
            ({"type": "ByteLevel"}, PairFrame(first_type=0)),
            ({"type": "BertProcessing", "cls": ["c", 1], "sep": ["s", 2]}, PairFrame((1,), (2,), (2,), 1)),
            ({"type": "RobertaProcessing", "cls": ["c", 1], "sep": ["s", 2]}, PairFrame((1,), (2, 2), (2,))),
            ([("s", 0), ("A", 0), ("t", 0), ("B", 1), ("t", 1)], PairFrame((7,), (8,), (8,), 1)),
            ([("s", 0), ("A", 0), ("t", 0), ("t", 1), ("B", 1)], PairFrame((7,), (8, 8), (), 1)),
            ([("A", 0), ("t", 0), ("B", 0)], PairFrame((), (8,), ())),
        ],
    )
    def test_a_post_processor(self, processor, frame, tmp_path):
        processor = self.template(*processor) if isinstance(processor, list) else processor
        assert read_pair_frame(tmp_path, processor) == frame
        wrapped = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processor or {"type": "ByteLevel"}]}
        assert read_pair_frame(tmp_path, wrapped) == frame

    @pytest.mark.parametrize(
        "pieces",
        [
            [("B", 0), ("A", 0)],
            [("A", 0)],
            [("A", 0), ("B", 1), ("A", 1)],
            [("A", 1), ("B", 0)],
            [("A", 0), ("B", 2)],
            [("A", 0), ("B", 0), ("t", 1)],
            [("s", 1), ("A", 0), ("B", 1)],
        ],
    )
    def test_another_order_or_other_types_are_refused(self, pieces, tmp_path):
        with pytest.raises(ModelLoadError, match="post_processor"):
            read_pair_frame(tmp_path, self.template(*pieces))

    @pytest.mark.parametrize(
        "processor", [{"type": "Other"}, {"type": "TemplateProcessing"}, {}, 7, {"type": "Sequence"}]
    )
    def test_a_malformed_one_is_refused(self, processor, tmp_path):
        with pytest.raises(ModelLoadError, match="post_processor"):
            read_pair_frame(tmp_path, processor)


@pytest.mark.parametrize(("name", "layer"), [("reranker-qwen3", "embed_tokens"), ("reranker-bert", "classifier")])
def test_damaged_weights_are_refused(name, layer, tmp_path):
    directory = copy_model(name, tmp_path)

    def spoil(tensors):
        return {key: np.full_like(one, np.nan) if layer in key else one for key, one in tensors.items()}

    assert layer in str(list(load_file(directory / "model.safetensors")))
    edit_tensors(directory / "model.safetensors", spoil)
    assert "computes values that are not finite" in refusal(directory)
