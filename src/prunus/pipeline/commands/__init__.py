"""What do commands do that are more than one stage and less than a run?"""
