"""T30: every call that changes something, sent again after the daemon was killed between commit and answer.

    again.py --openapi FILE --copyd PROGRAM --configuration FILE --state DIR --socket PATH --room DIR --log FILE
             [--rounds N] [--seed N]

The daemon is killed (SIGKILL) at a random moment after a request was sent, or as soon as its store is seen to be
written; it is started again, the same request is sent with the same key, and once more. There is one job, or one step
of a job, and the two answers are the same. Where no answer had come although the request had been carried out, the kill
fell between commit and answer: the scenario counts these, and creates jobs until it has some, because without them it
proves nothing.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid

from client import Client, Described, Refused, arguments, wait_until


class Daemon:
    def __init__(self, asked):
        self.asked, self.process = asked, None
        self.log = open(asked.log, "ab")

    def start(self):
        self.process = subprocess.Popen(
            [self.asked.copyd, "serve", "--config", self.asked.configuration, "--state-dir", self.asked.state],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
        )
        wait_until("the daemon answers", self.answers, 30, 0.01)

    def answers(self):
        assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}"
        try:
            client = Client(DESCRIBED, socket_path=self.asked.socket, timeout=2)
            client.readiness()
            return True
        except (OSError, Refused):
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)


class Outcome:
    """What a call came to: its answer, or its refusal."""

    def __init__(self, client, call, given):
        try:
            answer = client.call(call, **copied(given))
            self.status, self.body, self.headers = answer.status, answer.body, answer.headers
        except Refused as refusal:
            self.status, self.body, self.headers = refusal.status, refusal.problem, refusal.headers

    def same(self, other):
        return (self.status, self.body) == (other.status, other.body)


def copied(given):
    return {name: dict(value) if isinstance(value, dict) else value for name, value in given.items()}


class Repeater:
    def __init__(self, daemon, client, randomness):
        self.daemon, self.client, self.random = daemon, client, randomness
        self.counts = {}
        self.typical_s = 0.01

    def log(self):
        """The store's log of what was committed, as it stands."""
        try:
            found = os.stat(os.path.join(self.daemon.asked.state, "daemon", "daemon.sqlite-wal"))
            return found.st_size, found.st_mtime_ns
        except FileNotFoundError:
            return None

    def until_written(self, before, at_most_s):
        until = time.monotonic() + at_most_s
        while self.log() == before and time.monotonic() < until:
            pass

    def once(self, call, given, carried_out, fine=None):
        """One round. `carried_out` asks the daemon, after its restart, whether the request was carried out."""
        connection = self.client.connection(10)
        before = self.log()
        method, target, headers, body = self.client.request(call, copied(given))
        connection.request(method, target, body, headers)
        if self.random.random() < 0.5:
            # From at once to somewhat after the usual answer.
            time.sleep(self.random.uniform(0, self.typical_s * 1.5))
        else:
            self.until_written(before, self.typical_s * 3)
        self.daemon.kill()
        try:
            found = connection.getresponse()
            first = (found.status, found.read())
        except OSError:
            first = None
        except Exception as error:  # An answer that breaks off is none.
            first = None if "IncompleteRead" in repr(error) or "BadStatus" in repr(error) else sys.exit(repr(error))
        finally:
            connection.close()
        self.daemon.start()
        done = carried_out()
        second = Outcome(self.client, call, given)
        third = Outcome(self.client, call, given)
        if fine:
            assert second.status in fine and third.status in fine, f"{call}: {second.status} {third.status}"
        else:
            assert second.status < 300, f"{call}: {second.status} {second.body}"
        assert fine or second.same(third), f"{call}: {second.status} {second.body}\n{third.status} {third.body}"
        if first is not None and not fine:
            # Without a key a name is what makes a thing one: made the first time (201), there the second (200).
            assert (first[0] == second.status or (first[0], second.status) == (201, 200)) and (json.loads(first[1]) if first[1] else b"") == second.body, (
                f"{call}: {first}\n{second.status} {second.body}")
            assert done, f"{call}: answered, and not carried out: {first}"
        fate = "answered" if first else "between" if done else "before"
        count = self.counts.setdefault(call, {"answered": 0, "between": 0, "before": 0})
        count[fate] += 1
        return second


def keyed():
    return {"Idempotency-Key": str(uuid.uuid4())}


class Scenario:
    def __init__(self, asked):
        self.asked = asked
        self.daemon = Daemon(asked)
        self.client = Client(DESCRIBED, socket_path=asked.socket, timeout=10)
        self.repeat = Repeater(self.daemon, self.client, random.Random(asked.seed))
        self.number = 0

    def spec(self, bytes_per_s=None, **more):
        """A small job on trees of its own."""
        self.number += 1
        places = [os.path.join(self.asked.room, f"{side}-{self.number}") for side in ("source", "destination")]
        os.makedirs(places[0])
        for name in range(3):
            with open(os.path.join(places[0], str(name)), "wb") as file:
                file.write(bytes([name]) * 100_000)
        spec = {"kind": "migrate", "source": {"export": places[0]}, "destination": {"export": places[1]},
                "labels": {"round": str(self.number)}, **more}
        if bytes_per_s:
            spec["limits"] = {"bytes_per_s": bytes_per_s}
        return spec

    def jobs_of(self, spec):
        return self.client.list_jobs(label="round=" + spec["labels"]["round"]).body["jobs"]

    def job(self, bytes_per_s=None, until=None, **more):
        made = self.client.create_job(body=self.spec(bytes_per_s, **more)).body["id"]
        if until:
            self.until(made, until)
        return made

    def until(self, job, state):
        wait_until(f"the job is {state}", lambda: self.client.show_job(id=job).body["state"] == state, 60)

    def commands_of(self, job, word):
        page = self.client.list_events(id=job, limit=1000).body
        return [e for e in page["events"] if e["type"] == "command" and e["command"] == word]

    def measure(self):
        times = []
        for _ in range(5):
            began = time.monotonic()
            self.client.create_job(body=self.spec(), headers=keyed())
            times.append(time.monotonic() - began)
        self.repeat.typical_s = sorted(times)[2]

    def creations(self, rounds):
        for _ in range(rounds):
            spec = self.spec()
            answer = self.repeat.once("create_job", {"body": spec, "headers": keyed()}, lambda: self.jobs_of(spec))
            found = self.jobs_of(spec)
            assert [job["id"] for job in found] == [answer.body["id"]], f"one key, one job: {found}"

    def between(self):
        return sum(count["between"] for count in self.repeat.counts.values())

    def command(self, operation, word, job, state=None):
        if state:
            self.until(job, state)
        before = len(self.commands_of(job, word))
        carried_out = lambda: len(self.commands_of(job, word)) > before
        self.repeat.once(operation, {"id": job, "headers": keyed()}, carried_out)
        assert len(self.commands_of(job, word)) == before + 1, f"{word} was taken more than once"

    def commands(self, rounds):
        for _ in range(rounds):
            slow = self.job(bytes_per_s=20_000)
            self.command("pause_job", "pause", slow)
            self.command("resume_job", "resume", slow, "paused")
            self.command("cancel_job", "cancel", slow)
            ready = self.job(until="ready")
            self.command("cut_over_job", "cutover", ready)
            self.until(ready, "completed")

    def removal(self, job):
        """A record that is removed stays so: 204 once, then 404."""
        gone = lambda: Outcome(self.client, "show_job", {"id": job}).status == 404
        self.repeat.once("delete_job", {"id": job}, gone, fine=(204, 404))
        assert gone()

    def others(self, rounds):
        for _ in range(rounds):
            job = self.job(bytes_per_s=20_000)
            # A change, seen by its label.
            patch = {"labels": {"round": "patched", "of": job}}
            self.repeat.once("change_job", {"id": job, "body": patch, "headers": keyed()},
                             lambda: self.client.show_job(id=job).body["spec"]["labels"] == patch["labels"])
            self.client.cancel_job(id=job)
            self.until(job, "cancelled")
            self.removal(job)
            group = f"group-{self.number}"
            self.repeat.once("create_group", {"body": {"name": group}},
                             lambda: any(g["name"] == group for g in self.client.list_groups().body["groups"]))


def main():
    parser = arguments(argparse.ArgumentParser())
    for name in ("copyd", "configuration", "state", "room", "log"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    asked = parser.parse_args()
    print(f"seed {asked.seed}")
    global DESCRIBED
    DESCRIBED = Described(asked.openapi)
    scenario = Scenario(asked)
    scenario.daemon.start()
    try:
        scenario.measure()
        scenario.creations(asked.rounds)
        while scenario.between() == 0 and scenario.number < 100:
            scenario.creations(1)
        scenario.commands(max(1, asked.rounds // 4))
        scenario.others(max(1, asked.rounds // 4))
        for job in scenario.client.list_jobs(limit=1000).body["jobs"]:
            page = scenario.client.list_events(id=job["id"], limit=1000).body["events"]
            assert [event["id"] for event in page] == list(range(1, len(page) + 1)), f"a gap in {job['id']}"
    finally:
        scenario.daemon.end()
    print(json.dumps({"typical_s": round(scenario.repeat.typical_s, 4), "kills": scenario.repeat.counts}))
    assert scenario.between() > 0, "no kill fell between commit and answer, so nothing was proved: raise --rounds"


if __name__ == "__main__":
    sys.exit(main())
