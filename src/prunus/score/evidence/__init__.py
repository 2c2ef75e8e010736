"""What is gathered in one pass over the calibration set, and how?"""
