"""Which sizes may a recipe ask for?"""
