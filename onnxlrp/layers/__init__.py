"""Operators: one definition an operator, one file a family. Importing this package registers them all."""

from onnxlrp.layers import activation, arithmetic, convolution, dense, normalisation, pooling, shape

__all__ = ["activation", "arithmetic", "convolution", "dense", "normalisation", "pooling", "shape"]
