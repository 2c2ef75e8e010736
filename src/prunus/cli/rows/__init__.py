"""How do commands answer row by row, where some rows may be wrong?"""
