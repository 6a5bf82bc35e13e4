"""T29: slow clients, ten thousand connections, a body of 1 GiB, deep JSON; others are answered within a second.

    crowd.py --openapi FILE --socket PATH [--connections N]

Everything is sent to one unix socket, and a patient caller measures meanwhile how long its own answers take.
"""

import argparse
import json
import multiprocessing
import queue
import resource
import selectors
import socket
import sys
import time

from client import Client, Described, Refused, arguments, wait_until

# What the promise says.
ANSWERED_WITHIN_S = 1.0


def ask_patiently(openapi, path, over, found):
    """Asks again and again from a process of its own, and tells how long each answer took."""
    client = Client(Described(openapi), socket_path=path)
    try:
        while not over.is_set():
            for call in ("health", "list_jobs", "show_capabilities", "readiness"):
                began = time.monotonic()
                client.call(call, timeout=10)
                found.put((began, time.monotonic() - began, call))
            time.sleep(0.02)
    except Exception as error:  # Whatever it is, it is the result.
        found.put((time.monotonic(), None, repr(error)))


def opened(path):
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(path)
    made.setblocking(False)
    return made


def crowd(path, count):
    """Connections of four kinds: silent, slow in the head, slow in the body, and deaf to the answer."""
    head = b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n"
    body = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    connections = []
    for number in range(count):
        one = opened(path)
        if number % 4 == 1:
            one.send(head)
        elif number % 4 == 2:
            one.send(body)
        elif number % 4 == 3:
            for _ in range(4):
                one.send(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connections.append(one)
    return connections


def dribble(connections, seconds):
    """A byte now and then from those that are slow."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for number, one in enumerate(connections):
            if number % 4 in (1, 2) and number % 16 < 8:
                try:
                    one.send(b"X" if number % 4 == 1 else b" ")
                except OSError:
                    pass  # It was cut, which is right for one so slow.
        time.sleep(0.5)


def refused_early(path, head, chunk, least_status):
    """Sends a body without end; gives the status of the answer and how many bytes were taken."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.settimeout(20)
    one.connect(path)
    one.sendall(head)
    sent, answer = 0, b""
    watch = selectors.DefaultSelector()
    watch.register(one, selectors.EVENT_READ | selectors.EVENT_WRITE)
    end = time.monotonic() + 20
    while sent < 1 << 30 and time.monotonic() < end:
        events = watch.select(5)[0][1]
        try:
            if events & selectors.EVENT_READ:
                found = one.recv(65536)
                answer += found
                if not found or b"\r\n\r\n" in answer:
                    break
            if events & selectors.EVENT_WRITE:
                sent += one.send(chunk)
        except OSError:
            break
    one.close()
    status = int(answer.split(b" ")[1]) if answer else None
    assert status is not None and status >= least_status, f"no answer after {sent} bytes"
    return status, sent


def standing(metrics):
    """How many connections the daemon has."""
    lines = [line for line in metrics.splitlines() if line.startswith("copyd_api_connections ")]
    assert lines, metrics
    return float(lines[0].split()[-1])


def main():
    asked = arguments(argparse.ArgumentParser())
    asked.add_argument("--connections", type=int, default=10_000)
    asked = asked.parse_args()
    need = asked.connections + 500
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(need, hard) if hard < need else need, max(need, hard)))
    client = Client(Described(asked.openapi), socket_path=asked.socket)
    over, found = multiprocessing.Event(), multiprocessing.Queue()
    patient = multiprocessing.Process(target=ask_patiently, args=(asked.openapi, asked.socket, over, found), daemon=True)
    patient.start()

    began = time.monotonic()
    connections = crowd(asked.socket, asked.connections)
    opened_in = time.monotonic() - began
    # While they come the queue of the socket is full, and whoever comes later waits in it for its turn.
    wait_until("all stand", lambda: standing(client.metrics().body.decode()) >= asked.connections, 30)
    stood = time.monotonic()
    dribble(connections, 8)
    metrics = client.metrics().body.decode()

    length = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n"
    chunked = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    sized = refused_early(asked.socket, length, b" " * 65536, 413)
    unsized = refused_early(asked.socket, chunked, b"10000\r\n" + b" " * 65536 + b"\r\n", 413)
    # The bound is 1 MiB; what lies in buffers on the way comes on top.
    for status, taken in (sized, unsized):
        assert status == 413 and taken < 8 << 20, (status, taken)
    deep = []
    for body in (b"[" * 500_000, b'{"kind":' * 100_000, b'{"labels":' + b"[" * 400_000 + b"]" * 400_000 + b"}"):
        try:
            client.call("create_job", body=Raw(body), checked=False)
        except Refused as refusal:
            deep.append(refusal.status)
    assert deep == [400, 400, 400], deep
    # A head without end.
    status, taken = refused_early(asked.socket, b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: " + b"a" * 1000 + b"\r\n", 400)
    assert status in (400, 431) and taken < 8 << 20, (status, taken)

    over.set()
    answers = []
    while patient.is_alive() or not found.empty():
        try:
            answers.append(found.get(timeout=0.2))
        except queue.Empty:
            pass
    for one in connections:
        one.close()
    failures = [what for _, took, what in answers if took is None]
    assert not failures, failures
    longest = max((took, what, round(began - stood, 1)) for began, took, what in answers if began > stood)
    while_they_came = max((took, what) for began, took, what in answers if began <= stood)
    assert len(answers) > 50, len(answers)
    assert longest[0] <= ANSWERED_WITHIN_S, longest
    assert while_they_came[0] <= 5 * ANSWERED_WITHIN_S, while_they_came
    after = time.monotonic()
    client.health()
    assert time.monotonic() - after <= ANSWERED_WITHIN_S
    open_then = [line for line in metrics.splitlines() if "connections" in line and not line.startswith("#")]
    print(json.dumps({
        "connections": asked.connections, "opened_in_s": round(opened_in, 2), "answers": len(answers),
        "longest": longest, "while_they_came": while_they_came, "refused_after_bytes": [sized[1], unsized[1]],
        "metrics": open_then[:4],
    }))


class Raw(bytes):
    """A body that is sent as it is."""


if __name__ == "__main__":
    sys.exit(main())
