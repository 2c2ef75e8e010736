"""How does a model leave in 8-bit whole numbers, and what came of that?"""
