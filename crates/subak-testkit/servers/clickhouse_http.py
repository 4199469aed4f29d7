#!/usr/bin/env python3
"""clickhouse_http.py FOLDER PORT: the newest ClickHouse engine, which runs inside a process (chdb), behind its HTTP interface. For tests only.

It answers on 127.0.0.1 as far as Subak's tests ask: queries and settings in the URL, statements and rows in the body, errors with their
codes. It has no users and no native protocol."""
import gzip, os, re, sys, tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import chdb

FOLDER, PORT = sys.argv[1], int(sys.argv[2])
UPLOADS = FOLDER + "-uploads"
INSERT = re.compile(r"^\s*insert\s+into\s+(.*?)\s+format\s+(\w+)\s*$", re.I | re.S)
FORMAT = re.compile(r"\bformat\s+(\w+)\s*;?\s*$", re.I)
READS = re.compile(r"\s*(select|with)\b", re.I)
INSERTS_FROM_QUERY = re.compile(r"\s*insert\s+into\b(?:(?!\bvalues\b).)*?\bselect\b", re.I | re.S)
CREATES_FROM_QUERY = re.compile(r"\s*create\s+table\b.*?\bas\s+select\b", re.I | re.S)
NO_SETTINGS = {"query", "database", "user", "password", "default_format", "query_id", "readonly", "async_insert", "wait_end_of_query"}

os.makedirs(UPLOADS, exist_ok=True)
connection = chdb.connect(FOLDER)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
        else:
            pieces = []
            while length := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            data = b"".join(pieces)
        return gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data

    def reply(self, status, data, code=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.body())

    def answer(self, body):
        url = urlsplit(self.path)
        if url.path == "/ping":
            return self.reply(200, b"Ok.\n")
        values = dict(parse_qsl(url.query, keep_blank_values=True))
        settings = ", ".join(f"{name} = {value}" for name, value in values.items() if name not in NO_SETTINGS)
        query, upload = values.get("query", ""), None
        packed = "compression 'zstd' " if self.headers.get("content-encoding") == "zstd" else ""
        try:
            if insert := INSERT.match(query):
                descriptor, upload = tempfile.mkstemp(dir=UPLOADS)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(body)
                query = f"insert into {insert[1]} from infile '{upload}' {packed}" + (f"settings {settings} " if settings else "") + f"format {insert[2]}"
                form = "Null"
            else:
                query = f"{query}\n{body.decode()}".strip()
                found = FORMAT.search(query)
                form = found[1] if found else "TabSeparated"
                query = query[: found.start()] if found else query
                if settings and (READS.match(query) or INSERTS_FROM_QUERY.match(query) or CREATES_FROM_QUERY.match(query)):
                    query += f" settings {settings}"
            result = connection.query(query, form)
            self.reply(200, result.bytes() if result is not None and hasattr(result, "bytes") else b"")
        except Exception as error:
            text = str(error)
            code = re.search(r"Code: (\d+)", text)
            self.reply(500, text.encode() + b"\n", code[1] if code else "1")
        finally:
            if upload:
                os.unlink(upload)


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
