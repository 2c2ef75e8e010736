"""What holds tensors, and in which order: the answers of models, and the ways to call them."""
