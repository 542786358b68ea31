"""What a run needs besides the network and its data: devices, state, provenance, interruptions.

Conventions: a run folder belongs to one recipe; rank 0 writes all of its files.
"""
