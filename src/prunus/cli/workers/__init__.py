"""What does a command do so that others can share its work?"""
