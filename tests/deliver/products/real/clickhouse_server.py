"""ClickHouse's engine with the part of its HTTP interface that inserts use.

    python clickhouse_server.py FOLDER

Prints its port. Parsing, types, deduplication, views and error messages are those of the engine, in
chdb. Only HTTP is added, with the statuses of exceptionCodeToHTTPStatus.cpp that the tests need. A
query is in `?query=`, with its data in the body, or in the body alone. All other parameters are
settings of the query.
"""

from __future__ import annotations

import gzip
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from chdb.session import Session

STATUSES = {
    **dict.fromkeys((6, 25, 26, 27, 36, 38, 41, 44, 53, 62, 72, 117, 321, 376, 441, 675, 676), 400),
    **dict.fromkeys((46, 47, 50, 60, 73, 81, 115), 404),
    48: 501,
    159: 408,
}
OF_HTTP = {"query", "wait_end_of_query"}
CODE = re.compile(r"Code: (\d+)")

engine = Session(sys.argv[1])
one_at_a_time = threading.Lock()  # the engine allows one connection per process


def execute(query: str, data: str, settings: dict[str, str]) -> bytes:
    given = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
    if " FORMAT JSONEachRow" in query:  # an insert, whose data follows
        into, form = query.split(" FORMAT ")
        query = f"{into} SETTINGS {given} FORMAT {form}\n{data}"
    elif given:
        query = f"{query} SETTINGS {given}"
    with one_at_a_time:
        return bytes(engine.query(query, "JSONEachRow").bytes() or b"")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 2**16  # head and body in two packets would cause a delay of 40 ms

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        options = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        settings = {name: each for name, each in options.items() if name not in OF_HTTP}
        text = body.decode("utf-8", "surrogateescape")
        query, data = (options["query"], text) if "query" in options else (text, "")
        try:
            status, response = 200, execute(query, data, settings)
        except RuntimeError as error:
            response = str(error).encode("utf-8", "replace")
            code = CODE.search(str(error))
            status = STATUSES.get(int(code[1]) if code else 0, 500)
        self.send_response(status)
        self.send_header("Content-Length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


with Server(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"port {server.server_address[1]}", flush=True)
    sys.stdin.read()  # ends with the process that started it
