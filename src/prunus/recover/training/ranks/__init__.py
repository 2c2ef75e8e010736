"""How do several processes train one model together, as one process would?"""
