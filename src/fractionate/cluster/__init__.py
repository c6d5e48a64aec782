"""A run on more than one process, on Ray: its calls as shards, its local weights as actors, its trainings as tasks.

The run itself stays where it is: it cuts work into shards, merges the tables that they ship, and has the one store. A
run that was begun on a cluster goes on without one.
"""
