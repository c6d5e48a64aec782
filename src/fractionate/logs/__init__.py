"""Logs of answered questions, whoever wrote them, read as systems to compare; a file for each kind of log."""
