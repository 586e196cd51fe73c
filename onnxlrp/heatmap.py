"""Pictures from relevance, for Python programs: `from onnxlrp import heatmap`.

Maps are [H, W] (`as_map` makes one from a model's relevance), pictures uint8 [H, W, 3], results PIL images.
"""

from onnxlrp.look import NAMES as CMAPS
from onnxlrp.run.drawing import Heading
from onnxlrp.run.heatmap import PERCENTILE, Scaled, as_map, colour, heatmap, normalise, overlay
from onnxlrp.run.page import panel
from onnxlrp.run.sheet import Row, Tile, channel_sheet, contact_sheet

__all__ = [
    "CMAPS",
    "PERCENTILE",
    "Heading",
    "Row",
    "Scaled",
    "Tile",
    "as_map",
    "channel_sheet",
    "colour",
    "contact_sheet",
    "heatmap",
    "normalise",
    "overlay",
    "panel",
]
