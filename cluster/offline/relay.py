"""Connections from this machine's loopback into the offline cluster's network, as a load balancer before it would make them.

usage: relay.py NETNS PORT=HOST:PORT ...
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys
from contextlib import suppress

CLONE_NEWNET = 0x40000000
CHUNK = 1 << 16


def listening(port: int) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    one.listen(256)
    one.setblocking(False)
    return one


def enter(netns: str) -> None:
    """From now on sockets of this process are made in that network namespace; those that there are stay where they are."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    if libc.setns(folder, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), netns)
    os.close(folder)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(CHUNK):
            writer.write(some)
            await writer.drain()
    with suppress(OSError):
        writer.close()


async def relay(sockets: dict[socket.socket, tuple[str, int]]) -> None:
    def towards(host: str, port: int):
        async def join(reader, writer):
            try:
                there = await asyncio.open_connection(host, port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

        return join

    servers = [await asyncio.start_server(towards(*where), sock=one) for one, where in sockets.items()]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main(netns: str, *pairs: str) -> None:
    sockets = {}
    for pair in pairs:
        port, _, where = pair.partition("=")
        host, _, there = where.rpartition(":")
        sockets[listening(int(port))] = (host, int(there))
    enter(netns)
    asyncio.run(relay(sockets))


if __name__ == "__main__":
    main(*sys.argv[1:])
