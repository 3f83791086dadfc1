"""The figures of docs/FAULTS.md are those of the committed files."""

from __future__ import annotations

import json

import pytest

from tests.faults import report
from tests.faults.matrix import FAULTS
from tests.model.bench import SORTS

ROUND = {"rounds": 2, "problems": 0, "recovery_s": [3.0, 1.0], "costs": {"retries": 5}, "peak_mib": 100}


def test_the_document_says_what_the_files_say() -> None:
    document = report.DOCUMENT.read_text(encoding="utf-8")
    assert report.sections()
    assert document == report.filled(document, report.sections()), "run `python -m tests.faults.report --write`"


def test_every_fault_of_the_matrix_was_injected() -> None:
    figures = json.loads((report.HERE / "matrix.json").read_text())
    assert sorted(figures) == sorted(fault.name for fault in FAULTS)


def test_a_row_of_the_matrix() -> None:
    text = report.matrix({"500": ROUND})
    assert "| 500 | For 4 s every list is answered 500 | 2 | 0 | 1.0 | 3.0 | 2.5 retries |" in text
    assert text.endswith("2 rounds, 0 of them wrong. No program ever took more than 100 MiB.")


def test_tables_go_between_their_markers_and_nowhere_else() -> None:
    document = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n<!-- begin y -->\nold\n<!-- end y -->\n"
    assert report.filled(document, {"x": r"\1 new"}) == document.replace("old", r"\1 new", 1)
    with pytest.raises(ValueError, match="no place for z"):
        report.filled(document, {"z": ""})


def test_rows_of_model_and_fuzz() -> None:
    wrong = dict.fromkeys(SORTS, 0)
    counts = {"histories": 2000, "batches": 3000} | wrong
    text = report.model({"runs": [[0, 0, 2000]], "uncounted": [[1, 500, 1000]], "counts": counts})
    assert text.startswith("2,500 histories.")
    assert "What 2,000 of them had in them" in text
    assert "| lost | 0 |" in text
    assert "| batches | 3,000 |" in text
    target = {"executions": 1500, "failures": 0, "accepted_share": 0.5, "messages accepted": 750}
    text = report.fuzz(
        {"executions": 1500, "seconds": 3, "failures": 0, "postgresql_round_trips": 7, "targets": {"messages": target}}
    )
    assert "| messages | 1,500 | 0 | 750 messages accepted |" in text
