"""How do shares of the data and of the model do together?"""
