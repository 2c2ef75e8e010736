"""How does a record become a page?"""
