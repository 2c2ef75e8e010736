"""How do the weights that stay take over the work of those that went, without training?"""
