"""How does a traced computation lose units?"""
