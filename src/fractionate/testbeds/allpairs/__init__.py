"""All-Pairs (arXiv 1807.00126): an image of 2k symbols of m classes; is every class there an even number of times?"""
