"""Knowledge Matters (arXiv 1301.4083): three pentominoes on a grid of blocks; are all three of one class?"""
