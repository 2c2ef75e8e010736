"""What does a model say of the training examples, and which model says it?"""
