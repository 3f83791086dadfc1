"""Passwords for a test's PostgreSQL that are quick to log in with: SCRAM-SHA-256 as ever, of one round, not 4,096.

Those rounds make guessing dear. They cost both ends of each connection milliseconds, and tests make ten thousand.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets


def verifier(password: str) -> str:
    """What `alter role ... password` takes and PostgreSQL stores: see pg_authid, rolpassword."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_, stored_, server_ = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256$1:{salt_}${stored_}:{server_}"
