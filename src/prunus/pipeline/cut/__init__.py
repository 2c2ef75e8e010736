"""How is one round of pruning decided and carried out?"""
