"""Whole classifiers, as the exporters and packages of the field make them, from file to explainer."""
