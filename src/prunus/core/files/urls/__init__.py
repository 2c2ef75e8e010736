"""How are URLs of object stores read and written where a path may stand?"""
