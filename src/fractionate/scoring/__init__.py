"""Reading answers out of a model's words: final statements, numbers, spans, yes or no, choices."""
