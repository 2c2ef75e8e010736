"""Does a smaller model over-fit, and when does that end its training?"""
