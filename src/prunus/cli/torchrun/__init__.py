"""How do commands run on several processes at once?"""
