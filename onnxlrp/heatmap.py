"""Pictures from relevance, for Python programs: `from onnxlrp import heatmap`.

Maps are [H, W] (`as_map` makes one from a model's relevance), pictures uint8 [H, W, 3], results PIL images.
"""

from onnxlrp.run.colormaps import NAMES as CMAPS
from onnxlrp.run.heatmap import PERCENTILE, Scaled, as_map, colour, heatmap, normalise, overlay
from onnxlrp.run.page import Heading, contact_sheet, panel

__all__ = [
    "CMAPS",
    "PERCENTILE",
    "Heading",
    "Scaled",
    "as_map",
    "colour",
    "contact_sheet",
    "heatmap",
    "normalise",
    "overlay",
    "panel",
]
