"""Every decomposer × solver pair: outcome, cost, tests, verdict."""
