"""Which commands are about bundles that are there?"""
