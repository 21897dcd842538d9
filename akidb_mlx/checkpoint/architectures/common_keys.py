"""The keys of config.json that all architectures have.

Collected from the configuration classes of transformers 5.23 and of earlier versions, and from what training and
conversion tools write beside them.
"""

from __future__ import annotations

from akidb_mlx.checkpoint.known_keys import harmless, honoured, only

READ = honoured("model_type auto_map quantization quantization_config max_position_embeddings vocab_size")

# Read in rerankers only: an embedding model has no use for them, or must not have them.
RERANKER_KEYS = honoured(
    "sentence_transformers sbert_ce_default_activation_function id2label num_labels tie_word_embeddings"
)

HARMLESS = {
    **harmless(
        "_name_or_path name_or_path _commit_hash architectures transformers_version "
        "_from_model_config _auto_class pipeline_tag library_name license transformers.js_config "
        "unsloth_version unsloth_fixed",
        reason="tells where the model came from",
    ),
    **harmless(
        "torch_dtype dtype use_bfloat16 _pre_quantization_dtype",
        reason="types are read from the weights",
    ),
    **harmless(
        "id2label label2id num_labels _num_labels problem_type finetuning_task task_specific_params "
        "tie_word_embeddings tie_encoder_decoder tie_last_hidden_states final_logit_softcapping",
        reason="is of a head, and a model with a head is refused",
    ),
    **harmless(
        "tokenizer_class bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id "
        "unk_token_id decoder_start_token_id model_max_length max_seq_length",
        reason="is decided by the tokenizer's files; padding is masked",
    ),
    **harmless(
        "initializer_range gradient_checkpointing tf_legacy_loss "
        # Other architectures' names too: converters carry them along.
        "dropout attention_dropout hidden_dropout activation_dropout attention_probs_dropout_prob hidden_dropout_prob "
        "embedding_dropout embd_pdrop attn_pdrop resid_pdrop mlp_dropout classifier_dropout classifier_dropout_prob "
        "qa_dropout seq_classif_dropout",
        reason="is used in training only",
    ),
    **harmless(
        "output_hidden_states output_attentions output_past return_dict use_return_dict torchscript use_cache "
        "chunk_size_feed_forward _attn_implementation attn_implementation _attn_implementation_autoset "
        "_attn_implementation_internal _flash_attn_2_enabled experts_implementation _experts_implementation "
        "_experts_implementation_internal cache_implementation pretraining_tp",
        reason="chooses an implementation or further outputs",
    ),
    **harmless(
        "max_length min_length max_new_tokens min_new_tokens do_sample early_stopping num_beams num_beam_groups "
        "diversity_penalty temperature top_k top_p min_p typical_p epsilon_cutoff eta_cutoff repetition_penalty "
        "encoder_repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids "
        "force_words_ids num_return_sequences output_scores output_logits return_dict_in_generate "
        "forced_bos_token_id forced_eos_token_id forced_decoder_ids remove_invalid_values renormalize_logits "
        "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens guidance_scale penalty_alpha "
        "max_time constraints stop_strings low_memory sequence_bias",
        reason="is used in generation only",
    ),
}

ONLY = {
    **only(
        "is_encoder_decoder is_decoder add_cross_attention",
        *(None, False),
        reason="a decoder is another model than the encoder that is read here",
    ),
    **only("cross_attention_hidden_size", None, reason="cross-attention is not computed"),
    **only("pruned_heads per_layer_config", *(None, {}), reason="layers that differ from one another are not computed"),
    **only("prefix", *(None, ""), reason="no string is put before texts but a prompt"),
    **only("model_file", None, reason="it names code that mlx-lm would run, and no code of a model is run here"),
    **only(
        "sentence_transformers sbert_ce_default_activation_function",
        None,
        reason="it belongs to a cross-encoder (reranker), which is not an embedding model: use akidb_mlx.Reranker",
    ),
}
