"""Where, and by how many, is a recipe done?"""
