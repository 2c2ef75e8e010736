"""Which examples say nearly the same, by their rows, texts or token ids, and which of them stays?"""
