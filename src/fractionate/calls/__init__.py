"""The path from a request to a stored completion: store, limits, budget, faults."""
