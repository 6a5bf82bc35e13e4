"""What schemathesis can't know by itself: which directories of this daemon a job may name (scripts/schemathesis).

Every other field stays as it was generated, valid or not. Without this each job is refused as not allowed, and the
calls on jobs never meet one.
"""

import os
import random

import schemathesis

SHARES = os.environ["COPYD_SHARES"]


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    for side in ("source", "destination"):
        place = body.get(side)
        if isinstance(place, dict) and isinstance(place.get("export"), str) and place["export"].startswith("/"):
            name = "a" if side == "source" else f"b{random.randrange(8)}"
            body[side] = {**place, "export": f"{SHARES}/{name}"}
    return body
