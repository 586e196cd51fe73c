"""Speed, memory and file size beside the peers: `python -m tools.bench`, which writes tools/reports/BENCHMARKS.md.

`timing`, `results`, `limits`, `cache`, `report` and `plot` know nothing of ONNX Runtime or torch. `onnx_side` and
`torch_side` hold the contestants, `child` does one measurement in a process of its own, `jobs` starts these.
"""
