"""How does an exported model become one of 8-bit whole numbers, and which of its layers stay as they are?"""
