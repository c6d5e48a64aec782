"""Reads answers out of model replies, and scores them: one reader and one scorer for each form of answer."""
