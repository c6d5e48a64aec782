"""`local:` models: weights on this machine, found, rendered for and run with transformers."""
