#!/usr/bin/env python3
"""Runs one copy with `copyd worker`, as a control plane does that wants no daemon.

A specification goes in, events come out, one JSON object a line on both sides (docs/cli.md, "The worker"). Nothing
here is copyd's own: whatever can start a process and read lines can do the same.

    worker.py [--copyd PROGRAM] [--isolated] [--rate BYTES_PER_S] [--cancel-at BYTES] KIND SOURCE DESTINATION STATE

Prints what happens, and ends with the worker's exit code. SIGINT and SIGTERM cancel at a safe point; the same command
again resumes.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys


class Worker:
    """One worker. Iterate over it for its events; the last one is its summary."""

    def __init__(self, specification, program="copyd", isolated=False):
        command = [program, "worker", "--spec", "-"] + (["--isolated"] if isolated else [])
        # A group of its own, so that a Ctrl-C in a terminal reaches this program alone, which then asks.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.tell(specification)

    def tell(self, line):
        """Writes the specification, or a command after it."""
        try:
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended, and its last event says how.

    def cancel(self):
        """Asks for a stop at a safe point. Who wants to be sure kills the process after a few seconds: no final name
        ever holds a torn object, and the next run resumes."""
        self.tell({"command": "cancel"})

    def __iter__(self):
        # stdin stays open meanwhile: its end would say that nobody is interested any more.
        for line in self.process.stdout:
            yield json.loads(line)
        # A command that came too late is still in the pipe's buffer, and finds no reader.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def name_of(event, field="name"):
    """A name as it may be printed. One that is not UTF-8 comes as base64."""
    return event.get(field) or "base64:" + event.get(field + "_b64", "")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--copyd", default="copyd", help="the program")
    arguments.add_argument("--isolated", action="store_true", help="in namespaces of its own; as root")
    arguments.add_argument("--rate", type=int, help="bytes a second at most")
    arguments.add_argument("--cancel-at", type=int, help="cancel when so many bytes are copied")
    arguments.add_argument("kind", choices=["migrate", "sync", "verify"])
    arguments.add_argument("source")
    arguments.add_argument("destination")
    arguments.add_argument("state")
    asked = arguments.parse_args()

    specification = {
        "schema": 1,
        "kind": asked.kind,
        "source": {"export": asked.source},
        "destination": {"export": asked.destination},
    }
    if asked.kind != "verify":
        specification["state_dir"] = asked.state
    if asked.rate:
        specification["limits"] = {"bytes_per_s": asked.rate}

    worker = Worker(specification, asked.copyd, asked.isolated)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: worker.cancel())

    summary = None
    for event in worker:
        kind = event["event"]
        if kind == "progress":
            print(f"{event['percent']:3d} %  {event['bytes_copied']} bytes, {event['failed']} failed")
            if asked.cancel_at is not None and event["bytes_copied"] >= asked.cancel_at:
                worker.cancel()
        elif kind == "stall":
            print(f"no answer from {event['side'] or 'somebody'} for {event['seconds']} s ({event['operation']})")
        elif kind == "entry_failed":
            print(f"failed: {name_of(event)!r}: {event['class']}: {event['remedy']}", file=sys.stderr)
        elif kind == "loss":
            print(f"not kept: {name_of(event)!r}: {event['class']}", file=sys.stderr)
        elif kind == "summary":
            summary = event
        # Others are of no interest here. A program skips what it does not know: later versions say more.

    if summary is None:
        print("the worker died without a last word; the same command resumes", file=sys.stderr)
        return 2
    print(f"{summary['outcome']}: {summary['files_copied']} files, {summary['bytes_copied']} bytes copied, "
          f"{summary['proved']} entries proved, {summary['failed']} failed")
    if summary.get("error"):
        print(f"{summary['error']['message']}: {summary['error']['remedy']}", file=sys.stderr)
    return summary["exit_code"]


if __name__ == "__main__":
    sys.exit(main())
