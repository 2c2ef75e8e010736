"""Which sections of the page tell of what a run exported?"""
