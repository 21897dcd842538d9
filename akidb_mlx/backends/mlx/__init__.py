"""The MLX backend: token ids in, pooled vectors out.

model        loads a checkpoint and runs batches
encoders/    one architecture a file
layers, attention, rotary, activations, pooling   the parts that encoders share
weights      stored tensors to layers
plan         the choices that depend on the device
"""
