"""What lies in the folder of a search, and may this one go on there?"""
