"""How does a recipe become a record: one flow from data to bundle."""
