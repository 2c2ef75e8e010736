"""What is a data set, and how does each form of data become one?"""
