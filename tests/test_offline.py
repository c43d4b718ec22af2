"""The tests themselves are offline."""

import socket

import pytest


def test_nothing_reaches_another_computer():
    with pytest.raises(ConnectionRefusedError, match="offline"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)  # an address that is nobody's
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()
