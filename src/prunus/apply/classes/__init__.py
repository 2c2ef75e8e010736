"""How does a model's own class follow a cut?"""
