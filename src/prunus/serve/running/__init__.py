"""How does a bundle become something that answers, and in which order?"""
