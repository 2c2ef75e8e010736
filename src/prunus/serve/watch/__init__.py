"""What is known of a running server: numbers, lines, traces?"""
