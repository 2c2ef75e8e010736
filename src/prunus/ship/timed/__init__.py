"""How is a model timed in the runtimes that what ships needs files for?"""
