"""Fuzzing what reads foreign bytes: the message decoder, the page splitter, the checks and the repair of bodies.

`python -m tests.fuzz --executions 1000000`. Inputs are made by structure (`making.py`), so that a good share is taken
and the rest is wrong in one place only; the judges share no code with the package (`trees.py`, PostgreSQL).
"""
