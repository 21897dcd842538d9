"""Random model directories, embedded by this package and by sentence-transformers, which must agree.

contents         a model directory in memory
architectures    a config.json and random weights of each architecture
tokenizer_files  a tokenizer of each kind
cases            a random directory: an ordinary model and a few edits of its files
edits            the edits: values of keys, changes of tensors and tokenizers, layouts
config_values    the values that keys of the files may get
comparison       what two answers about one directory amount to
worker           a process that embeds directories, with this package or with sentence-transformers
session          both processes, the directories between them, and the smallest edits that still differ
__main__         the command line of `make fuzz-reference`
"""
