"""Settings become connection arguments."""

from __future__ import annotations

import pytest

from clusterinfo.errors import ConfigError
from clusterinfo.postgres.pool import connection_arguments
from clusterinfo.settings import load


@pytest.mark.parametrize("content", ["-----BEGIN PRIVATE KEY-----canary", "canary\nhunter2", "canary" * 100])
@pytest.mark.parametrize("variable", ["DB_SSL_ROOT_CERT", "DB_SSL_CERT", "DB_SSL_KEY"])
def test_what_belongs_into_a_file_is_not_quoted_where_its_name_is_expected(variable: str, content: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable} names .*: expected a PEM file") as caught:
        connection_arguments(load({variable: content}))
    assert "canary" not in str(caught.value)


def test_a_key_in_one_line_is_not_quoted_either_and_a_path_is() -> None:
    with pytest.raises(ConfigError, match=r"^DB_SSL_KEY names a file that is not there") as caught:
        connection_arguments(load({"DB_SSL_KEY": "MHcCAQEEIcanary"}))
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^DB_SSL_CERT names '/nowhere/tls\.crt', which is no file"):
        connection_arguments(load({"DB_SSL_CERT": "/nowhere/tls.crt"}))
