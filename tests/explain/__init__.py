"""Whole explainers of small networks against a float64 restatement of what the papers say."""
