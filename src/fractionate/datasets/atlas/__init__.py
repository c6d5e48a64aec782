"""`atlas`, the embedded data set: questions over passages of real geography facts, made from a seed."""

from fractionate.datasets.atlas.problems import DATASET, alternatives, generate, kinds, parse_split, sub_answers

__all__ = ["DATASET", "alternatives", "generate", "kinds", "parse_split", "sub_answers"]
