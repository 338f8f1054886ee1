from __future__ import annotations

import socket
from pathlib import Path

import pytest

from daemon.config import Config, load
from daemon.errors import ConfigError
from daemon.service import Service


def service(tmp_path: Path, text: str) -> Service:
    path = tmp_path / "config.toml"
    path.write_text(text)

    def read() -> Config:
        return load(path, environ={}, cwd=tmp_path)

    return Service(read(), load=read, environ={})


@pytest.mark.parametrize(
    ("name", "key", "enough"),
    [("webhook", "webhook.secret", '[webhook]\nsecret = "s"'), ("admin", "admin.token", '[admin]\ntoken = "t"')],
)
def test_an_inherited_socket_does_not_open_what_the_configuration_may_not(
    tmp_path: Path, name: str, key: str, enough: str
) -> None:
    with socket.socket() as everywhere, socket.socket() as here:
        everywhere.bind(("0.0.0.0", 0))
        here.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError) as refused:
            service(tmp_path, "")._refuse_exposure({name: everywhere})
        assert [problem.key for problem in refused.value.problems] == [key]
        service(tmp_path, "")._refuse_exposure({name: here})
        service(tmp_path, enough)._refuse_exposure({name: everywhere})
