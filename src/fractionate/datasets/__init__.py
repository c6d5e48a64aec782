"""Data sets, one file each: loader, answer extractor, scorer, source."""
