"""Where ONNX Runtime would put each node on a GPU machine, found out without one."""
