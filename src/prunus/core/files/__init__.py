"""How are files written whole and read with care?"""
