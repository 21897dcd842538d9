"""The llama.cpp backend: token ids in, pooled vectors out, for embedding models in GGUF files.

runtime      imports llama.cpp, and loads files that were checked
tokenizer    the tokenizer that the file holds
model        contexts and batches
"""
