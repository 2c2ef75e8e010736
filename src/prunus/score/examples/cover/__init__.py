"""Examples that stand for all others: orders of picking, clusters and turns."""
