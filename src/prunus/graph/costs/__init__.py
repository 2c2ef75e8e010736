"""What does a unit cost, in MACs, parameters and time?"""
