"""An object store on loopback: a real S3 server, and before it a proxy that can throttle, fail, cut, hang and lose replies."""

import http.client
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

SECRET = "a-secret-key-of-nobody"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length")


@dataclass
class Fault:
    """What happens to the next `times` requests that match, after the first `skip` of them."""

    kind: str
    """A status such as 503; cut: a reply of `after` bytes; lost: done, and no reply; half: `after` bytes of the body arrive;
    hang: nothing until the store is closed; call: `call` is called, and the request goes through."""
    match: str = "."
    """Pattern of METHOD /bucket/key?query."""
    times: int = 1_000_000
    skip: int = 0
    after: int = 0
    call: Callable[[], object] = print


@dataclass
class Store:
    """The address of the store, what was asked of it, and what is to go wrong."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)
    backend: tuple[str, int] = ("", 0)
    names: Iterator[int] = field(default_factory=lambda: iter(range(1, 1_000_000)))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to find it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.url}

    @cached_property
    def client(self) -> Any:
        """boto3, past the proxy: another program than recjob."""
        keys = {"aws_access_key_id": "nobody", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url="http://{}:{}".format(*self.backend), **keys)

    def bucket(self) -> str:
        """A new bucket."""
        name = f"bucket-{next(self.names)}"
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, content: bytes | Path) -> None:
        """Store an object."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def objects(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """All keys with their sizes, but for the markers of folders."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", [])}
        return {key: size for key, size in found.items() if not key.endswith("/")}

    def read(self, bucket: str, key: str) -> bytes:
        """The bytes of an object."""
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def fails(self, kind: str, match: str = ".", **how: Any) -> Fault:
        """Let requests go wrong from now on."""
        self.faults.append(fault := Fault(kind, match, **how))
        return fault

    def fate(self, request: str) -> Fault | None:
        """What is to happen to a request."""
        with self.lock:
            self.asked.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.match, request):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None


def _handler(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            fault = store.fate(f"{self.command} {self.path}")
            kind, after = (fault.kind, fault.after) if fault else ("", 0)
            body = self.rfile.read(after) if kind == "half" else self.body()
            if fault and kind == "call":
                fault.call()
            if kind in ("half", "hang"):
                store.closed.wait(0 if kind == "half" else 60)
                self.close_connection = True
            elif kind.isdigit():
                code = {
                    "503": "SlowDown",
                    "429": "TooManyRequests",
                    "500": "InternalError",
                    "403": "AccessDenied",
                    "301": "PermanentRedirect",
                }[kind]
                reply = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
                self.answer(int(kind), {"Content-Type": "application/xml"}, reply)
            else:
                self.forward(body, kind, after)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def forward(self, body: bytes, kind: str, after: int) -> None:
            connection = http.client.HTTPConnection(*store.backend, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in (*_HOP, "expect")}
            connection.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
            reply = connection.getresponse()
            content = reply.read()
            if kind == "lost":
                self.close_connection = True
                return
            length = reply.getheader("Content-Length") if self.command == "HEAD" else None
            headers = {name: value for name, value in reply.getheaders() if name.lower() not in _HOP}
            self.answer(reply.status, headers, content, after if kind == "cut" else None, length)

        def answer(
            self,
            status: int,
            headers: dict[str, str],
            content: bytes,
            cut: int | None = None,
            length: str | None = None,
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:cut])
            self.close_connection = self.close_connection or cut is not None

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # a client that was killed
                self.close_connection = True

    return Handler


@contextmanager
def serving() -> Iterator[Store]:
    """A store that serves, in threads of this process."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    store = Store(backend=server.get_host_and_port())
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(store))
    proxy.daemon_threads = True
    store.url = f"http://127.0.0.1:{proxy.server_port}"
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield store
    finally:
        store.closed.set()
        proxy.shutdown()
        proxy.server_close()
        server.stop()
