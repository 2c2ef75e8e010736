"""How is code found and called that a name stands for?"""
