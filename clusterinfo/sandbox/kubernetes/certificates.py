"""The certificate that the simulated API serves TLS with, and the authority that its kubeconfig names.

A new one at each start. kubectl needs it: client-go sends a bearer token over https:// alone.
"""

import datetime as dt
import ssl
from dataclasses import dataclass

VALID = dt.timedelta(days=30)
"""Longer than anybody keeps a demonstration running, short for whoever finds the kubeconfig later."""

LOCAL = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class ServerTls:
    """`authority`: the CA certificate that clients have to trust (PEM). `context`: what the server listens with."""

    authority: str
    context: ssl.SSLContext


def make_tls(*names: str) -> ServerTls:
    """A certificate for this machine and for `names` (hosts or addresses), good for 30 days.

    The authority signs nothing else: its key is never written, and discarded on return.
    """
    import trustme  # and cryptography: plain HTTP needs neither

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    expiry = dt.datetime.now(dt.UTC) + VALID
    authority.issue_cert(*dict.fromkeys([*LOCAL, *names]), not_after=expiry).configure_cert(context)
    return ServerTls(authority.cert_pem.bytes().decode("ascii"), context)
