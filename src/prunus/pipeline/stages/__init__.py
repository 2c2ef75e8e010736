"""What happens to the examples, the features and the model, one stage each?"""
