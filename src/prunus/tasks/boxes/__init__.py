"""Boxes: which there are, which meet what is there, and what a detector minimises."""
