"""Errors of Kafka and of aiokafka -> ours, from tables, and nowhere else."""

from __future__ import annotations

import ssl
from enum import Enum
from typing import Final

from aiokafka.errors import AuthenticationFailedError, CorruptRecordException, KafkaError

from clusterinfo.errors import ClusterinfoError, FatalError, RecordError, RestartError, TransientError, one_line


class Next(Enum):
    """What to do after an error."""

    RETRY = "do the same again, after a pause"
    REJOIN = "the group goes on without this member: aiokafka joins again; if it does not, another consumer does"
    NEW_PRODUCER = "aiokafka does not recover from it: another producer, and the list again"
    REJECT = "the record, or the batch, is larger than the broker takes, or damaged"
    HALT = "nothing the program can do will help: stop with one line"


# Codes: https://kafka.apache.org/protocol#protocol_error_codes
CODES: Final = {
    -1: Next.RETRY,  # unknown server error; what aiokafka does not know arrives as this one too
    2: Next.REJECT,  # corrupt message
    3: Next.RETRY,  # unknown topic or partition: metadata on its way
    5: Next.RETRY,  # leader not available
    6: Next.RETRY,  # not the leader
    7: Next.RETRY,  # request timed out
    8: Next.RETRY,  # broker not available; aiokafka calls it and the next one final
    9: Next.RETRY,  # replica not available
    10: Next.REJECT,  # message too large
    14: Next.RETRY,  # coordinator loads
    15: Next.RETRY,  # coordinator not available
    16: Next.RETRY,  # not the coordinator
    18: Next.REJECT,  # record list too large
    19: Next.RETRY,  # not enough replicas
    20: Next.RETRY,  # not enough replicas after append
    22: Next.REJOIN,  # illegal generation
    23: Next.HALT,
    24: Next.HALT,
    25: Next.REJOIN,  # unknown member
    26: Next.HALT,
    27: Next.REJOIN,  # rebalance in progress
    29: Next.HALT,
    30: Next.HALT,
    31: Next.HALT,
    33: Next.HALT,
    34: Next.HALT,
    35: Next.HALT,
    41: Next.RETRY,  # not the controller
    45: Next.NEW_PRODUCER,  # out of order sequence number
    47: Next.NEW_PRODUCER,  # invalid producer epoch
    53: Next.HALT,
    56: Next.RETRY,  # storage error
    58: Next.HALT,
    59: Next.NEW_PRODUCER,  # unknown producer id
    79: Next.REJOIN,  # member id required
}
"""Error code of the protocol -> what to do."""

OTHERWISE: Final = Next.HALT
"""For a code without an entry, and a foreign error without a code, unless aiokafka calls it retriable: rather stop than
spin."""

REMEDIES = {
    23: "the group has members of another kind; give KAFKA_GROUP_ID a name of its own",
    24: "the broker refuses this group name; change KAFKA_GROUP_ID",
    26: "the broker refuses this session timeout",
    29: "no rights on the topic; grant Read, Write, Describe and Create on it, or change KAFKA_TOPIC",
    30: "no rights on the consumer group; grant Read on it, or change KAFKA_GROUP_ID",
    31: "no rights on the cluster; grant IdempotentWrite, and Create unless the topic exists",
    33: "the broker does not offer this mechanism; change KAFKA_SASL_MECHANISM",
    34: "the broker did not expect a login; check KAFKA_SECURITY_PROTOCOL",
    35: "the broker's version is not supported; clusterinfo needs Kafka 2.1 or later",
    53: "no rights to send as this producer",
    58: "login refused; check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
}
"""What halts -> what to do about it: every code that halts has one."""

_ERRORS: Final[dict[Next, type[ClusterinfoError]]] = {
    Next.RETRY: TransientError,
    Next.REJOIN: TransientError,
    Next.NEW_PRODUCER: RestartError,
    Next.REJECT: RecordError,
    Next.HALT: FatalError,
}


def translate(error: BaseException, doing: str) -> ClusterinfoError:
    """The error of ours whose class is what to do after `error`; `doing` begins its line. Raise it from `error`."""
    if isinstance(error, ClusterinfoError):
        return error
    if remedy := _remedy(error):
        return FatalError(f"{doing}: {remedy} ({one_line(error)})")
    return _ERRORS[next_after(error)](f"{doing}: {one_line(error)}")


def is_final(error: BaseException) -> bool:
    """Whether, by a table, waiting cannot help: no rights, a refused login, a version that does not fit."""
    return bool(_remedy(error))


def next_after(error: BaseException) -> Next:
    """What to do after an exception of aiokafka or of the network."""
    if isinstance(error, AuthenticationFailedError | ssl.SSLError):
        return Next.HALT
    code = getattr(error, "errno", None) if isinstance(error, KafkaError) else None
    if code in CODES:
        return CODES[code]
    if isinstance(error, CorruptRecordException):
        return Next.REJECT
    if isinstance(error, OSError) or getattr(error, "retriable", False):  # TimeoutError is an OSError
        return Next.RETRY
    return OTHERWISE


def _remedy(error: BaseException) -> str:
    if isinstance(error, AuthenticationFailedError):
        return REMEDIES[58]
    if isinstance(error, ssl.SSLError):
        return "no TLS connection; check KAFKA_SECURITY_PROTOCOL and the KAFKA_SSL_ files"
    return REMEDIES.get(getattr(error, "errno", 0), "") if isinstance(error, KafkaError) else ""
