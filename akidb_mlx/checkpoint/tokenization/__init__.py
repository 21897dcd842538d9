"""A checkpoint's own tokenizer, from its files, with the token ids that transformers' AutoTokenizer would give."""
