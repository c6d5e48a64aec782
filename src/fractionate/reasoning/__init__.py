"""Strategies: single, static, stepwise, dynamic."""
