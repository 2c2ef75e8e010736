"""How does what was found read on a terminal?"""
