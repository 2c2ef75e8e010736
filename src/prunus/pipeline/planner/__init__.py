"""What would a run take on more rows than one wants to try?"""
