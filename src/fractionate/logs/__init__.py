"""Logs of answered questions, of any tool, read as systems to compare; one file per kind of log."""
