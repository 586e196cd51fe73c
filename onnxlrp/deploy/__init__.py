"""Explainers made ready for where they run: a web page that needs no server, a model repository for Triton."""
