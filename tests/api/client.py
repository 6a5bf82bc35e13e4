"""A client of copyd's API that knows nothing but its description (docs/openapi/v1.0.json).

Operations are called by the names that the description gives them; where they lie, what they take and what they may
answer is read from there, and an answer that is not described is an error. So whatever passes with this client can be
done by anybody who has that one file. Python's standard library alone.
"""

import http.client
import json
import re
import socket
import ssl
import time
import urllib.parse


class Refused(Exception):
    """A problem document (RFC 9457)."""

    def __init__(self, status, problem, headers):
        super().__init__(f"{status}: {problem.get('title')}: {problem.get('detail')} ({problem.get('remedy')})")
        self.status, self.problem, self.headers = status, problem, headers


class NotDescribed(AssertionError):
    """The daemon did something that its description does not say."""


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A socket with a timeout does not wait for a place in the queue of those to be taken on: it fails.
        self.sock.connect(self.path)
        self.sock.settimeout(self.timeout)


class Described:
    """The description: operations, and the shape of what they give."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.document = json.load(file)
        self.operations = {}
        for place, item in self.document["paths"].items():
            for method, operation in item.items():
                if isinstance(operation, dict) and "operationId" in operation:
                    self.operations[operation["operationId"]] = (method.upper(), place, operation)

    def resolve(self, value):
        while isinstance(value, dict) and "$ref" in value:
            found = self.document
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            value = found
        return value

    def check(self, schema, value, where="answer"):
        """Raises NotDescribed where a value is not of that shape."""
        schema = self.resolve(schema)
        if schema is True or not schema:
            return
        for part in schema.get("allOf", []):
            self.check(part, value, where)
        for word, least in (("oneOf", 1), ("anyOf", 1)):
            if word in schema:
                fits = [self.fits(part, value) for part in schema[word]]
                if sum(fits) < least or word == "oneOf" and sum(fits) != 1:
                    raise NotDescribed(f"{where}: {sum(fits)} of {len(fits)} shapes of {word} fit {value!r:.200}")
        if "const" in schema and value != schema["const"] or "enum" in schema and value not in schema["enum"]:
            raise NotDescribed(f"{where}: {value!r:.200} is none of {schema.get('enum', schema.get('const'))}")
        kinds = schema.get("type", [])
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if kinds and not any(self.is_kind(kind, value) for kind in kinds):
            raise NotDescribed(f"{where}: {value!r:.200} is no {' or '.join(kinds)}")
        if isinstance(value, dict):
            self.check_object(schema, value, where)
        elif isinstance(value, list):
            for number, one in enumerate(value):
                self.check(schema.get("items", True), one, f"{where}[{number}]")
        elif isinstance(value, str):
            if "pattern" in schema and not re.search(schema["pattern"], value):
                raise NotDescribed(f"{where}: {value!r:.200} is not of the form {schema['pattern']}")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            if value < schema.get("minimum", value) or value > schema.get("maximum", value):
                raise NotDescribed(f"{where}: {value} is out of range")

    def check_object(self, schema, value, where):
        for name in schema.get("required", []):
            if name not in value:
                raise NotDescribed(f"{where}: {name} is missing in {value!r:.300}")
        known = schema.get("properties", {})
        for name, one in value.items():
            if name in known:
                self.check(known[name], one, f"{where}.{name}")
            elif schema.get("additionalProperties") is False:
                raise NotDescribed(f"{where}: {name} is not described")
            elif isinstance(schema.get("additionalProperties"), dict):
                self.check(schema["additionalProperties"], one, f"{where}.{name}")

    def fits(self, schema, value):
        try:
            self.check(schema, value)
        except NotDescribed:
            return False
        return True

    @staticmethod
    def is_kind(kind, value):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return {
            "null": value is None, "boolean": isinstance(value, bool), "string": isinstance(value, str),
            "array": isinstance(value, list), "object": isinstance(value, dict), "number": number,
            "integer": number and float(value).is_integer(),
        }[kind]


class Client:
    """`client.create_job(body=…)`: one call of the operation of that name."""

    def __init__(self, described, socket_path=None, address=None, tls=None, token=None, timeout=30):
        self.described = described if isinstance(described, Described) else Described(described)
        self.socket_path, self.address, self.tls, self.token, self.timeout = socket_path, address, tls, token, timeout
        self.spoken = set()

    def connection(self, timeout=None):
        timeout = timeout or self.timeout
        if self.socket_path:
            return UnixConnection(self.socket_path, timeout)
        host, port = self.address
        return http.client.HTTPSConnection(host, port, context=self.tls, timeout=timeout)

    def __getattr__(self, name):
        if name not in self.described.operations:
            raise AttributeError(f"the description has no operation {name}")
        return lambda **given: self.call(name, **given)

    def request(self, operation, given):
        """Method, target, headers and body of a call."""
        name = operation
        method, place, operation = self.described.operations[name]
        headers = {"OpenStack-API-Version": "copyd 1.0"} if place.startswith("/v1") else {}
        headers.update(given.pop("headers", {}))
        if self.token:
            headers["Authorization"] = "Bearer " + self.token
        body = given.pop("body", None)
        if body is not None:
            content = self.described.resolve(operation["requestBody"])["content"]
            if "application/json" in content:
                if given.pop("checked", True):
                    self.described.check(content["application/json"]["schema"], body, f"{name}'s body")
                headers["Content-Type"] = "application/json"
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
            else:
                headers["Content-Type"] = next(iter(content))
        given.pop("checked", None)
        query = {}
        for parameter in map(self.described.resolve, operation.get("parameters", [])):
            if parameter["name"] in given and parameter["in"] == "path":
                value = urllib.parse.quote(str(given.pop(parameter["name"])), safe="")
                place = place.replace("{" + parameter["name"] + "}", value)
            elif parameter["name"] in given and parameter["in"] == "query":
                query[parameter["name"]] = given.pop(parameter["name"])
        if given or "{" in place:
            raise TypeError(f"{name} takes no {list(given)}, or lacks something: {place}")
        return method, place + ("?" + urllib.parse.urlencode(query, doseq=True) if query else ""), headers, body

    def call(self, operation, /, **given):
        """Calls the operation of that name; `body`, `headers`, `timeout`, and the parameters by their names."""
        name = operation
        timeout = given.pop("timeout", None)
        method, target, headers, body = self.request(name, given)
        connection = self.connection(timeout)
        try:
            connection.request(method, target, body, headers)
            found = connection.getresponse()
            raw = found.read()
        finally:
            connection.close()
        return self.judged(name, found, raw)

    def judged(self, name, found, raw):
        """The answer, after it was held against the description."""
        method, place, operation = self.described.operations[name]
        self.spoken.add((name, found.status))
        where = f"{method} {place}: {found.status}"
        response = operation["responses"].get(str(found.status))
        if response is None:
            raise NotDescribed(f"{where} is not described: {raw[:500]!r}")
        response = self.described.resolve(response)
        for header, described in response.get("headers", {}).items():
            if self.described.resolve(described).get("required") and found.getheader(header) is None:
                raise NotDescribed(f"{where}: the header {header} is missing")
        kind = (found.getheader("Content-Type") or "").split(";")[0].strip()
        content = response.get("content", {})
        if raw and kind not in content:
            raise NotDescribed(f"{where}: {kind} is not described, but {list(content)}")
        value = raw
        if kind.endswith("json") and "jsonl" not in kind and "ndjson" not in kind:
            value = json.loads(raw)
            self.described.check(content[kind].get("schema", True), value, where)
        if found.status >= 400:
            raise Refused(found.status, value, found.headers)
        return Answer(found.status, found.headers, value)

    def events(self, job, after=None, timeout=120):
        """The stream of a job's events: pairs of the id (None for what is not stored) and the event."""
        given = {"id": job, "headers": {"Accept": "text/event-stream"}}
        if after is not None:
            given["headers"]["Last-Event-ID"] = str(after)
        method, target, headers, _ = self.request("list_events", given)
        connection = self.connection(timeout)
        try:
            connection.request(method, target, headers=headers)
            found = connection.getresponse()
            if found.status != 200:
                self.judged("list_events", found, found.read())
            yield from parsed(found)
        finally:
            connection.close()


def parsed(lines):
    """The form of server-sent events (HTML standard, 9.2.6)."""
    number, kind, data = None, "message", []
    for line in lines:
        line = line.decode().rstrip("\r\n")
        if not line:
            if data:
                yield number, kind, json.loads("\n".join(data))
            number, kind, data = None, "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            number = int(value)
        elif field == "event":
            kind = value
        elif field == "data":
            data.append(value)


def wait_until(what, reached, seconds=60, every=0.05):
    """Asks until the answer is true, and gives it."""
    end = time.monotonic() + seconds
    while True:
        found = reached()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"never came to where {what}")
        time.sleep(every)


def context(ca, certificate=None, key=None):
    """TLS as a client does it, with a certificate of its own where one is named."""
    made = ssl.create_default_context(cafile=ca)
    if certificate:
        made.load_cert_chain(certificate, key)
    return made


def arguments(parser):
    """How a scenario is told where the daemon is."""
    parser.add_argument("--openapi", required=True)
    parser.add_argument("--socket")
    parser.add_argument("--address")
    parser.add_argument("--ca")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--token-file")
    return parser


def client_of(asked):
    token = None
    if asked.token_file:
        with open(asked.token_file, encoding="ascii") as file:
            token = file.read().strip()
    if asked.socket:
        return Client(asked.openapi, socket_path=asked.socket, token=token)
    host, _, port = asked.address.rpartition(":")
    tls = context(asked.ca, asked.certificate, asked.key)
    return Client(asked.openapi, address=(host, int(port)), tls=tls, token=token)
