"""What do the columns of a table hold, and which numbers does a model get for them?"""
