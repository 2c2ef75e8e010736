"""What is each training example worth, and does its label look right?"""
