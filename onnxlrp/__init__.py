"""Turn an ONNX image classifier into one that also says why: layer-wise relevance propagation in standard ONNX."""
