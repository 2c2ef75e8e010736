"""What does every stage of a run know and write?"""
