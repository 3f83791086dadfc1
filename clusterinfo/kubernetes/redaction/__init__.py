"""What must not leave the cluster: which names, values, texts and URLs are secret, where, and what stands for them.

Pure: no I/O, no clock, no environment. `rules.py` is the table of all of it, which SECURITY.md repeats.
"""
