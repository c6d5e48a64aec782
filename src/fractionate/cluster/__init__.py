"""A run on more than one process, on Ray: what of its work goes to whom, and what comes back of it.

The run itself stays where it is: it hands out ranges of programs, takes in what workers have stored, and reads every
value from its own store, as it would have without workers. So a cell is the same to the byte, and a run that was begun
on a cluster goes on without one.
"""
