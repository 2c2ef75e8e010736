"""What will a cut model cost?"""
