"""What is asked before a run starts?"""
