"""Models from and to the disk."""
