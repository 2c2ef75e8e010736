"""How are data that don't fit into memory learnt from as those that do?"""
