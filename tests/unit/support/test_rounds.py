"""The table of a benchmark: a ratio is that of a round, whatever the machine did meanwhile."""

import json

from tests.support.rounds import Rounds, Run


def test_ratios_are_of_the_same_round_and_medians_of_all() -> None:
    found = Rounds("plain")
    for slow in (1, 10, 2):
        found.add("plain", Run(1000, 2e6, 1.0 * slow, 0.5))
        found.add("ours", Run(1000, 2e6, 2.0 * slow, 1.0))
    of = found.of("ours")
    assert (of["rows_s"], of["mb_s"], of["cpu_s_gb"], of["ratio"]) == (250, 0.5, 500, 0.5)
    assert of["spread"] == (500 - 50) / 250
    head, *lines = found.lines()
    assert [line.split()[0] for line in lines] == ["plain", "ours"]
    assert len(head) == len(lines[0])
    assert json.loads(json.dumps(found.as_json()))["sides"]["ours"]["runs"][1]["seconds"] == 20
