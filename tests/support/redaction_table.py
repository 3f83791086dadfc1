"""SECURITY.md's table of the rules of redaction, as the code states them: `python -m tests.support.redaction_table`."""

from __future__ import annotations

from clusterinfo.kubernetes.redaction.rules import table

BEGIN, END = "<!-- redaction -->", "<!-- /redaction -->"

if __name__ == "__main__":
    print("\n".join(table()))
