"""Which of the served models answers?"""
