"""A wandb server on this machine that takes runs and keeps what it was sent."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "1", "name": "ssl_lightning", "entity": {"id": "1", "name": "team"}}
VIEW = {"type": "runs", "displayName": "", "description": "", "project": {"id": "1", "name": "p", "entityName": "team"}}


@dataclass
class Kept:
    """Of one wandb run.

    Args:
        upserts: variables of what created or changed it, in order.
        files: lines by offset of what is streamed, such as `wandb-history.jsonl`.
        uploads: bytes of its other files, by name.
    """

    upserts: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, dict[int, str]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for _, line in sorted(self.files.get("wandb-history.jsonl", {}).items())]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.files.get("wandb-summary.json", {})
        return json.loads(lines[max(lines)]) if lines else {}

    @property
    def config(self) -> dict[str, Any]:
        """The last one said, without what wandb notes itself."""
        config = [json.loads(one["config"]) for one in self.upserts if one.get("config")][-1]
        return {key: value["value"] for key, value in config.items() if key != "_wandb"}


class KeepingServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.runs: dict[str, Kept] = {}
        self.views: list[dict[str, Any]] = []  # variables of what saves workspaces and reports
        self.asked: list[str] = []
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def run(self, name: str) -> Kept:
        return self.runs.setdefault(name, Kept())


class _Request(BaseHTTPRequestHandler):
    server: KeepingServer

    def do_POST(self) -> None:
        body = self._body()
        with self.server.lock:
            if self.path == "/graphql":
                self._answer({"data": self._graphql(json.loads(body))})
            elif self.path.endswith("/file_stream"):
                self._stream(self.path.split("/")[-2], json.loads(body))
                self._answer({})
            else:
                self.server.asked.append(self.path)
                self._answer({}, 404)

    def do_PUT(self) -> None:
        _, _, run, name = self.path.split("/", 3)
        body = self._body()
        with self.server.lock:
            self.server.run(run).uploads[name] = body
        self._answer({})

    def _graphql(self, query: dict[str, Any]) -> dict[str, Any]:
        named = re.search(r"\b(?:query|mutation)\s+(\w+)", query["query"])
        operation = query.get("operationName") or (named[1] if named else "")
        variables = query.get("variables") or {}
        self.server.asked.append(operation)
        if operation == "Viewer":
            return {"viewer": {"id": "1", "entity": "team", "username": "me"}}
        if operation == "UpsertBucket":
            run = self.server.run(variables["name"])
            inserted = not run.upserts
            run.upserts.append(variables)
            bucket = {"id": "1", "name": variables["name"], "project": PROJECT}
            return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}
        if operation == "CreateRunFiles":
            run_name, files = variables["run"], variables["files"]
            urls = [{"name": name, "uploadUrl": f"{self.server.address}/uploads/{run_name}/{name}"} for name in files]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": urls}}
        if operation == "GetDefaultEntity":
            return {"viewer": {"id": "1", "entity": "team"}}
        if operation in ("GetProjects", "projects"):
            node = {"id": "1", "name": "ssl_lightning", "entityName": "team", "createdAt": "", "isBenchmark": False}
            edges = [{"node": node | {"user": None}, "cursor": "1"}]
            return {"models": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}
        if operation in ("UpsertView2", "upsertView"):
            self.server.views.append(variables)
            place = {"id": variables.get("id") or f"view{len(self.server.views)}", "name": variables["name"]}
            return {"upsertView": {"view": {**VIEW, **place, "spec": variables["spec"]}, "inserted": True}}
        if operation == "RunResumeStatus":
            return {"model": {**PROJECT, "bucket": None}}
        return {}

    def _stream(self, name: str, sent: dict[str, Any]) -> None:
        run = self.server.run(name)
        for file, chunk in (sent.get("files") or {}).items():
            lines = run.files.setdefault(file, {})
            lines |= {chunk["offset"] + i: line for i, line in enumerate(chunk["content"])}
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")

    def _body(self) -> bytes:
        import gzip

        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, content: Any, status: int = 200) -> None:
        answer = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def keeping() -> Iterator[KeepingServer]:
    server = KeepingServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
