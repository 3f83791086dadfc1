"""`python -m clusterinfo`: the same as the executable."""

from clusterinfo.cli import main

main()
