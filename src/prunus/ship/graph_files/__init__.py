"""How does a computation travel as a file that is checked before it runs?"""
