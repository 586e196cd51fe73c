"""Explainers of real architectures against zennit and torch."""
