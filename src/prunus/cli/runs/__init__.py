"""What does the command say that does the whole job?"""
