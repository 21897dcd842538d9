"""The ONNX Runtime backend: token ids in, pooled vectors out.

model        loads an ONNX file and runs batches
runtime      imports ONNX Runtime and makes its sessions
inspection   looks at a file before ONNX Runtime reads it
head         pooling and the modules after it, with NumPy
graph, conversion, export   write the computation of a model that MLX runs as an ONNX file
"""
