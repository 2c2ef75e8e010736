"""Where does what has an entry for every example lie, when there are very many of them?"""
