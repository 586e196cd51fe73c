"""Running explainers: ONNX Runtime sessions, pictures in, heatmaps out. Knows the contract, not how it was emitted."""
