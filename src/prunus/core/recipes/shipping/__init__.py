"""In which forms may a recipe ask that its model leaves?"""
