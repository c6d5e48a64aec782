"""Fractional distillation for LLM reasoning: measure decomposing and solving apart, distill the part that pays."""

__version__ = "0.1.0"
