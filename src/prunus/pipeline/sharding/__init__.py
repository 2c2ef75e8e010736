"""How does a trained model score a data set that is many files?"""
