"""From texts to vectors, in the order a text meets the modules.

prompts     a prompt goes before each text
tokenizer   texts become token ids, cut or windowed to what the model takes
batching    token ids of like length are put together, within a token budget
engine      one thread owns MLX and runs the batches one after another
model       a batch goes through the encoder, the pooling and the Dense layers
encoders/   one architecture a file

`architectures` and `checkpoint` say what a model is, `weights` and `device` how it gets onto the device. Only the
modules that `model` imports know MLX.
"""
