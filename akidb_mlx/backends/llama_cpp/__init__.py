"""The llama.cpp backend: token ids in, pooled vectors out, and texts that are continued, for models in GGUF files.

runtime      imports llama.cpp, and loads files that were checked
vocabulary   texts to tokens and back
tokenizer    the tokenizer of an embedding model
context      the memory that a computation takes
model        lanes and batches
"""
