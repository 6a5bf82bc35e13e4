"""A migration as a control plane makes it: created, watched to `ready`, changed meanwhile, cut over, reported.

    migrate.py --openapi FILE (--socket PATH | --address HOST:PORT --ca …) SOURCE DESTINATION

The tree at SOURCE is changed while the job is ready. Whether both sides are equal at the end judges the caller.
"""

import argparse
import json
import os
import sys
import uuid

from client import NotDescribed, Refused, arguments, client_of, wait_until


def changed(source):
    """What tenants do between the baseline and the cutover."""
    os.makedirs(os.path.join(source, "made-meanwhile/below"))
    with open(os.path.join(source, "made-meanwhile/below/file"), "wb") as file:
        file.write(os.urandom(300_000))
    with open(os.path.join(source, "grows"), "ab") as file:
        file.write(b"more of it\n" * 1000)
    os.rename(os.path.join(source, "moves"), os.path.join(source, "made-meanwhile/moved"))
    os.unlink(os.path.join(source, "goes"))
    os.chmod(os.path.join(source, "stays"), 0o600)


def states_of(events):
    return [event["to"] for event in events if event["type"] == "state_changed"]


def refused(client, status, call, **given):
    try:
        client.call(call, **given)
    except Refused as refusal:
        assert refusal.status == status, f"{call} {given}: {refusal}"
        for field in ("type", "title", "status", "detail", "remedy", "retry"):
            assert field in refusal.problem, f"{field} is missing in {refusal.problem}"
        return refusal.problem
    raise AssertionError(f"{call} {given} was not refused with {status}")


def main():
    parser = arguments(argparse.ArgumentParser())
    parser.add_argument("source")
    parser.add_argument("destination")
    asked = parser.parse_args()
    client = client_of(asked)

    versions = client.versions().body
    assert "1.0" in json.dumps(versions), versions
    client.readiness()
    capabilities = client.show_capabilities().body

    spec = {
        "kind": "migrate",
        "source": {"export": asked.source},
        "destination": {"export": asked.destination},
        "labels": {"share": "acceptance"},
        "private_data": {"key of the caller": "comes back"},
    }
    # A guard that is misspelt makes no job, and the field is named.
    before = client.list_jobs().body["jobs"]
    problem = refused(client, 400, "create_job", body={**spec, "max_deletes": 1}, checked=False)
    assert "max_deletes" in json.dumps(problem), problem
    problem = refused(client, 406, "list_jobs", headers={"OpenStack-API-Version": "copyd 1.99"})
    assert problem["min_version"] == problem["max_version"] == "1.0", problem
    refused(client, 403, "create_job", body={**spec, "source": {"export": "/etc"}})
    assert client.list_jobs().body["jobs"] == before, "a refused request made a job"

    key = {"Idempotency-Key": str(uuid.uuid4())}
    made = client.create_job(body=spec, headers=key)
    job = made.body["id"]
    assert made.status == 202 and made.body["private_data" if "private_data" in made.body else "spec"], made.body
    again = client.create_job(body=spec, headers=key)
    assert again.body["id"] == job, "one key, one job"
    refused(client, 422, "create_job", body={**spec, "priority": 3}, headers=key)

    seen, ids = [], []
    for number, kind, event in client.events(job):
        if kind == "progress":
            assert number is None, "what is not stored has no id"
            continue
        seen.append(event)
        ids.append(number)
        if event["type"] == "state_changed" and event["to"] in ("ready", "failed", "cancelled", "completed"):
            break
    assert ids == list(range(1, len(ids) + 1)), f"a gap: {ids}"
    assert states_of(seen)[-1] == "ready", seen
    # The same again from the middle, by the id that was seen last.
    resumed = []
    for number, kind, _ in client.events(job, after=ids[2]):
        if kind != "progress":
            resumed.append(number)
        if number == ids[-1]:
            break
    assert resumed == ids[3:], (resumed, ids)

    shown = client.show_job(id=job)
    forecast = wait_until("it foretells the cutover", lambda: client.show_job(id=job).body.get("forecast"))
    assert 0 <= forecast["median_s"] <= forecast["p90_s"], forecast
    changed(asked.source)

    current = client.show_job(id=job)
    refused(client, 412, "cut_over_job", id=job, headers={"If-Match": '"999999"'})
    answer = client.cut_over_job(id=job, headers={"If-Match": current.headers["ETag"]})
    assert answer.status == 202, answer.status
    rest = []
    for number, kind, event in client.events(job, after=ids[-1]):
        if kind == "progress":
            continue
        rest.append(event)
        ids.append(number)
        if event["type"] == "state_changed" and event["to"] in ("completed", "failed", "cancelled"):
            break
    assert ids == list(range(1, len(ids) + 1)), f"a gap: {ids}"
    assert states_of(rest)[-1] == "completed", rest
    kinds = [event["type"] for event in rest]
    assert "switch_safe" in kinds and kinds.index("switch_safe") < len(kinds), kinds

    done = client.show_job(id=job).body
    assert done["state"] == "completed" and done["totals"]["failed"] == 0, done
    report = client.show_report(id=job).body
    for word in (done["totals"]["share_digest"], asked.source, "completed"):
        assert word in json.dumps(report), f"{word} is not in the report"
    why = client.explain_entry(id=job, path="made-meanwhile/below/file").body
    assert "made-meanwhile/below/file" in json.dumps(why), why
    assert client.list_failures(id=job).body["failures"] == []
    client.list_losses(id=job)
    client.show_manifest(id=job)
    client.list_workers()
    client.metrics()
    page = client.list_jobs(limit=1, label="share=acceptance").body
    assert [one["id"] for one in page["jobs"]] == [job], page

    refused(client, 409, "pause_job", id=job)
    assert client.delete_job(id=job).status in (200, 202, 204)
    refused(client, 404, "show_job", id=job)
    print(json.dumps({"job": job, "states": states_of(seen + rest), "capabilities": sorted(capabilities)}))


if __name__ == "__main__":
    try:
        main()
    except (NotDescribed, Refused) as error:
        sys.exit(f"{type(error).__name__}: {error}")
