"""How is a model written and run for MNN?"""
