"""How long does a model take, and in which runtime?"""
