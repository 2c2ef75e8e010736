"""Which axes of all tensors are one and the same?"""
