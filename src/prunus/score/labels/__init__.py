"""Which given labels and values are wrong, and what is to become of their examples?"""
