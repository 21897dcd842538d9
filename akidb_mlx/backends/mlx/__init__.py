"""The MLX backend: token ids in, pooled vectors out.

model        loads a checkpoint and runs batches
encoders/    one architecture a file
layers, attention, activations, pooling   the parts that encoders share
weights      stored tensors to layers
device       the choices that depend on the device
"""
