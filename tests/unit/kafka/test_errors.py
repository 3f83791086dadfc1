"""What every error of Kafka means: the table of the design, copied by hand, against the one in the code."""

from __future__ import annotations

import ssl

import pytest
from aiokafka import errors as foreign

from clusterinfo.errors import ClusterinfoError, FatalError, RecordError, RestartError, TransientError
from clusterinfo.kafka.errors import CODES, REMEDIES, Next, is_final, next_after, translate

EXPECTED: dict[int, tuple[Next, type[ClusterinfoError]]] = {
    **dict.fromkeys((3, 5, 6, 7, 14, 15, 16, 19, 20, 41, 56, -1, 8, 9), (Next.RETRY, TransientError)),
    **dict.fromkeys((22, 25, 27, 79), (Next.REJOIN, TransientError)),
    **dict.fromkeys((45, 47, 59), (Next.NEW_PRODUCER, RestartError)),
    **dict.fromkeys((2, 10, 18), (Next.REJECT, RecordError)),
    **dict.fromkeys((29, 30, 31, 53, 58, 35), (Next.HALT, FatalError)),
    **dict.fromkeys((23, 24, 26, 33, 34), (Next.HALT, FatalError)),
}
UNKNOWN = sorted(code for code in foreign.kafka_errors if code not in EXPECTED and code != 0)


def test_the_table_has_these_entries_and_no_others() -> None:
    assert {code: step for code, (step, _) in EXPECTED.items()} == CODES


@pytest.mark.parametrize("code", EXPECTED)
def test_a_code_of_every_entry_leads_where_it_should(code: int) -> None:
    step, ours = EXPECTED[code]
    error = foreign.for_code(code)("said so")
    translated = translate(error, "sending")
    assert error.errno == code
    assert next_after(error) is step
    assert type(translated) is ours
    assert str(translated).startswith("sending: ")
    assert is_final(error) is (step is Next.HALT)


def test_what_halts_comes_with_what_to_do() -> None:
    assert {code for code, step in CODES.items() if step is Next.HALT} == set(REMEDIES)
    for code, remedy in REMEDIES.items():
        assert remedy in str(translate(foreign.for_code(code)(), "sending"))


@pytest.mark.parametrize("code", UNKNOWN)
def test_what_no_entry_covers_halts_unless_it_is_retriable(code: int) -> None:
    error = foreign.for_code(code)()
    assert type(translate(error, "sending")) is (TransientError if error.retriable else FatalError)


def test_a_code_newer_than_aiokafka_is_tried_again() -> None:
    assert type(translate(foreign.for_code(120)(), "sending")) is TransientError


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (foreign.KafkaConnectionError("gone"), TransientError),
        (foreign.NodeNotReadyError("soon"), TransientError),
        (foreign.KafkaTimeoutError(), FatalError),
        (foreign.KafkaError("odd"), FatalError),
        (ConnectionRefusedError(111, "refused"), TransientError),
        (OSError(58, "a number of the system's, not of Kafka's"), TransientError),
        (TimeoutError(), TransientError),
        (foreign.CorruptRecordException("bad checksum"), RecordError),
        (ssl.SSLCertVerificationError("self-signed certificate"), FatalError),
        (foreign.AuthenticationFailedError("no"), FatalError),
        (RestartError("ours already"), RestartError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_comes_without_a_code(error: BaseException, ours: type[ClusterinfoError]) -> None:
    translated = translate(error, "sending")
    assert type(translated) is ours
    assert "\n" not in str(translated)


def test_a_line_is_bounded() -> None:
    assert len(str(translate(OSError("long\n" * 1000), "sending"))) < 320
