"""What everything stands on: types, errors, recipes, files, randomness. It knows no model and no data set."""
