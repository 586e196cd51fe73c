"""Attributions made from many runs of an explainer, for Python programs: `from onnxlrp import attributors`.

Each takes an open `Explainer` and a batch, and returns an `Explanation` whose relevance is like the batch.
"""

from onnxlrp.run.attributors import integrated_gradients, occlusion, smoothgrad

__all__ = ["integrated_gradients", "occlusion", "smoothgrad"]
