"""The sections of a page about how safe a model is."""
