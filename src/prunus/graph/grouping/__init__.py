"""Which slices of which parameters go together, and what are they called?"""
