"""What may a recipe say, where is it read, and what of it may come from elsewhere?"""
