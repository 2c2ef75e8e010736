"""What does a model do with its inputs, operation by operation?"""
