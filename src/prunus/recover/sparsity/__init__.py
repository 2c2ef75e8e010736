"""How does training make weights or units small?"""
