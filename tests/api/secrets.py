"""T26: puts a credential, makes a job that uses one, and prints every answer that may be asked for.

    secrets.py --openapi FILE --address HOST:PORT --ca FILE --token-file FILE --secret TEXT SOURCE DESTINATION

Leaves the job running, slowly. Whether a secret is anywhere judges the caller, who also reads what is printed here.
"""

import argparse
import json
import sys

from client import Refused, arguments, client_of, wait_until


def main():
    parser = arguments(argparse.ArgumentParser())
    parser.add_argument("--secret", required=True)
    parser.add_argument("source")
    parser.add_argument("destination")
    asked = parser.parse_args()
    client = client_of(asked)
    shown = []

    def show(call, /, **given):
        try:
            answer = client.call(call, **given)
            shown.append((call, str(answer.headers), answer.body if not isinstance(answer.body, bytes) else
                          answer.body.decode(errors="replace")))
            return answer
        except Refused as refusal:
            shown.append((call, str(refusal.headers), refusal.problem))
            return None

    put = show("put_credential", name="backup", body={"secret": asked.secret})
    assert put is not None, shown
    show("list_credentials")
    # A body that is refused must not come back in the reason.
    show("put_credential", name="other", body={"secret": asked.secret, "more": asked.secret}, checked=False)
    show("put_credential", name="wrong", body={"secret": [asked.secret]}, checked=False)
    show("put_credential", name="text", body=asked.secret, checked=False)
    show("put_credential", name="key", body={asked.secret: 1}, checked=False)
    spec = {"kind": "migrate", "source": {"export": asked.source}, "destination": {"export": asked.destination},
            "limits": {"bytes_per_s": 50_000}}
    show("create_job", body={**spec, "credential": asked.secret}, checked=False)
    job = client.create_job(body=spec).body["id"]
    wait_until("a worker runs", lambda: client.show_job(id=job).body["progress"], 30)
    for call in ("show_job", "list_events", "list_failures", "list_losses", "show_report"):
        show(call, id=job)
    for call in ("list_jobs", "list_workers", "show_capabilities", "metrics", "health", "readiness", "versions"):
        show(call)
    client.token = client.token[:-1] + "x"
    show("list_jobs")
    print(json.dumps(shown, default=str))


if __name__ == "__main__":
    sys.exit(main())
