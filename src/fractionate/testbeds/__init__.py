"""All-Pairs and Knowledge Matters: dividing and solving where the truth is known exactly.

Both tasks show an image of several parts and ask for one relation over them, so that perceiving the parts (divide) and
judging the relation (solve) can be taught apart. `allpairs` is arXiv 1807.00126, `pentomino` is arXiv 1301.4083.
"""
