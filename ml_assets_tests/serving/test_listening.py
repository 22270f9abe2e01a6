"""Processes that listen on one port."""

import multiprocessing
import os
import pickle
import socket
from collections import Counter
from contextlib import closing
from multiprocessing.connection import Connection

import pytest
from uvicorn import Config

from ml_assets.serving.listening import listener, require_free
from ml_assets_tests.serving.conftest import free_port

CONNECTIONS = 60


def answers_its_number(listening: socket.socket, told: Connection) -> None:
    listening.listen()
    told.send(os.getpid())
    while True:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(str(os.getpid()).encode())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_connections_that_come_at_once_are_spread_over_all_processes(host: str) -> None:
    port = free_port()
    shared = listener(Config(app="none", host=host, port=port))
    spawned = multiprocessing.get_context("spawn")
    here, there = spawned.Pipe()
    processes = [spawned.Process(target=answers_its_number, args=(shared, there), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    try:
        numbers = {here.recv() for _ in processes}
        connections = [socket.create_connection((host, port), timeout=10) for _ in range(CONNECTIONS)]
        counts = Counter(int(connection.recv(20)) for connection in connections)
        assert counts.keys() == numbers
        assert min(counts.values()) >= CONNECTIONS // 10
        for connection in connections:
            connection.close()
    finally:
        shared.close()
        for process in processes:
            process.kill()
            process.join()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_is_taken_once(processes: int) -> None:
    port = free_port()
    require_free("127.0.0.1", port)
    if processes == 1:
        taken = socket.create_server(("127.0.0.1", port))
    else:
        with closing(listener(Config(app="none", port=port))) as shared:
            taken = pickle.loads(pickle.dumps(shared))
        taken.listen()
    with (
        taken,
        pytest.raises(ValueError, match=f"cannot listen at 127.0.0.1:{port}: Address already in use; choose another --port"),
    ):
        require_free("127.0.0.1", port)


def test_addresses_of_other_machines() -> None:
    with pytest.raises(ValueError, match=r"cannot listen at 192.0.2.1:8000: Cannot assign requested address"):
        require_free("192.0.2.1", 8000)
