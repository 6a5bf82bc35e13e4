"""T25: a job goes on, and another is made, while the daemon's clock jumps ten years in either direction.

    clock.py --openapi FILE --socket PATH --clock FILE ROOM

FILE holds the seconds by which the daemon's wall clock is moved; `clock.c` reads it.
"""

import argparse
import email.utils
import json
import os
import struct
import sys
import time

from client import arguments, client_of, wait_until

TEN_YEARS_S = 3653 * 86400


def main():
    parser = arguments(argparse.ArgumentParser())
    parser.add_argument("--clock", required=True)
    parser.add_argument("room")
    asked = parser.parse_args()
    client = client_of(asked)
    numbers = iter(range(100))

    def job(bytes_per_s, **more):
        number = next(numbers)
        source, destination = (os.path.join(asked.room, f"{side}-{number}") for side in ("source", "destination"))
        os.mkdir(source)
        for name in range(40):
            with open(os.path.join(source, str(name)), "wb") as file:
                file.write(os.urandom(100_000))
        spec = {"kind": "migrate", "source": {"export": source}, "destination": {"export": destination},
                "limits": {"bytes_per_s": bytes_per_s}, **more}
        return client.create_job(body=spec).body["id"]

    def jump(seconds):
        with open(asked.clock, "r+b") as file:
            file.write(struct.pack("=q", seconds))

    def state(one):
        return client.show_job(id=one).body["state"]

    finished = []
    for seconds in (TEN_YEARS_S, 0, -TEN_YEARS_S, 0):
        one = job(600_000, timeout_s=20)
        wait_until("it runs", lambda: state(one) == "baseline", 30)
        before = client.show_job(id=one).body
        jump(seconds)
        began = time.monotonic()
        time.sleep(1.5)
        during = client.show_job(id=one).body
        assert during["attempt"] == before["attempt"] == 0, "the run was given up"
        assert during["state"] == before["state"] == "baseline", (before["state"], during["state"])
        if not finished:
            # The daemon's own clock has jumped, or this would prove nothing. (The library that writes this header
            # looks at the clock once a second of that clock, so it follows no jump back.)
            date = email.utils.parsedate_to_datetime(client.health().headers["Date"]).timestamp()
            assert abs(date - time.time() - seconds) < 60, (date, seconds)
        wait_until("it is ready", lambda: state(one) == "ready", 60)
        assert time.monotonic() - began < 40, "it waited for the clock"
        client.cut_over_job(id=one)
        wait_until("it is done", lambda: state(one) == "completed", 60)
        events = client.list_events(id=one, limit=1000).body["events"]
        assert [event["id"] for event in events] == list(range(1, len(events) + 1)), events
        starts = [event for event in events if event["type"] == "run_started"]
        assert len(starts) < 12, f"passes without end: {len(starts)}"
        finished.append(one)
    # Nothing that was finished is swept away as old.
    known = {one["id"] for one in client.list_jobs(limit=1000).body["jobs"]}
    assert known >= set(finished), (known, finished)
    print(json.dumps({"finished": len(finished)}))


if __name__ == "__main__":
    sys.exit(main())
