"""A loopback server with the part of Grafana's documented HTTP API that pushing dashboards needs.

It keeps data sources, folders, dashboards and annotations, checks the token, gives each object a number, and refuses
paths with the numeric id of a data source as Grafana 13 does. `faults` makes it fail on a path.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "glsa_5ecret_0123"


class GrafanaStub:
    """The state of the server.

    Attributes:
        data_sources, folders, dashboards, annotations: in the form of its API.
        requests: (method, path, body) of every request, in order.
        faults: start of a path -> the (status, message) of the answer, `hang`, `html`, or a URL to redirect to.
        version: the version in /api/health.
    """

    def __init__(self) -> None:
        self.data_sources: list[dict[str, Any]] = []
        self.folders: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.annotations: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, Any]] = []
        self.faults: dict[str, tuple[int, str] | str] = {}
        self.version = "13.2.3"
        self.let_go = threading.Event()
        self.url = ""

    def state(self) -> Any:
        """Return all objects in the form of JSON."""
        return json.loads(json.dumps([self.data_sources, self.folders, self.dashboards, self.annotations]))

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """Answer a request with the right token."""
        match method, path.removeprefix("/api/").split("/"):
            case "GET", ["datasources"]:
                return 200, self.data_sources
            case "POST", ["datasources"]:
                return self._make_data_source(body)
            case "PUT", ["datasources", "uid", uid]:
                return self._change_data_source(uid, body)
            case _, ["datasources", number] if number.isdigit():
                return 404, {"message": "data source APIs by numeric id are switched off"}
            case "GET", ["folders", uid]:
                return (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})
            case "POST", ["folders"]:
                return self._make_folder(body)
            case "PUT", ["folders", uid]:
                if not body.get("overwrite"):
                    return 412, {"message": "The folder has been changed by someone else", "status": "version-mismatch"}
                self.folders[uid]["title"] = body["title"]
                return 200, self.folders[uid]
            case "GET", ["dashboards", "uid", uid]:
                found = self.dashboards.get(uid)
                return (200, found) if found else (404, {"message": "Dashboard not found"})
            case "POST", ["dashboards", "db"]:
                return self._save_dashboard(body)
            case "GET", ["annotations"]:
                tags = set(query.get("tags", ()))
                return 200, [note for note in self.annotations if tags <= set(note["tags"])]
            case "DELETE", ["annotations", number]:
                self.annotations = [note for note in self.annotations if note["id"] != int(number)]
                return 200, {"message": "Annotation deleted"}
            case "POST", ["annotations"]:
                number = 1 + max((note["id"] for note in self.annotations), default=0)
                self.annotations.append(
                    {"id": number, "time": body["time"], "tags": body["tags"], "text": body["text"]}
                )
                return 200, {"message": "Annotation added", "id": number}
            case "PUT", ["annotations", number]:
                found = next(note for note in self.annotations if note["id"] == int(number))
                found.update(text=body["text"], tags=body["tags"], time=body["time"])
                return 200, {"message": "Annotation updated"}
        return 404, {"message": "Not found"}

    def _make_data_source(self, body: dict[str, Any]) -> tuple[int, Any]:
        if any(one["name"] == body["name"] for one in self.data_sources):
            return 409, {"message": "data source with the same name already exists"}
        made = {"id": len(self.data_sources) + 1, "orgId": 1, "readOnly": False, "version": 1, **body}
        self.data_sources.append(made)
        return 200, {"datasource": made, "id": made["id"], "message": "Datasource added", "name": body["name"]}

    def _change_data_source(self, uid: str, body: dict[str, Any]) -> tuple[int, Any]:
        for one in self.data_sources:
            if one["uid"] == uid:
                one.update(body, version=one["version"] + 1)
                return 200, {"datasource": one, "message": "Datasource updated"}
        return 404, {"message": "Data source not found"}

    def _make_folder(self, body: dict[str, Any]) -> tuple[int, Any]:
        if any(folder["title"] == body["title"] for folder in self.folders.values()):
            return 409, {"message": "a folder with the same name already exists"}
        self.folders[body["uid"]] = {"id": len(self.folders) + 1, "uid": body["uid"], "title": body["title"]}
        return 200, self.folders[body["uid"]]

    def _save_dashboard(self, body: dict[str, Any]) -> tuple[int, Any]:
        uid = body["dashboard"]["uid"]
        before = self.dashboards.get(uid)
        if before and not body.get("overwrite"):
            return 412, {"message": "A dashboard with the same uid already exists", "status": "name-exists"}
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        version = before["dashboard"]["version"] + 1 if before else 1
        number = before["dashboard"]["id"] if before else len(self.dashboards) + 1
        saved = body["dashboard"] | {"id": number, "version": version}
        self.dashboards[uid] = {"dashboard": saved, "meta": {"folderUid": body["folderUid"]}}
        return 200, {"id": number, "uid": uid, "status": "success", "version": version}


@contextlib.contextmanager
def grafana_stub() -> Iterator[GrafanaStub]:
    """Serve one on a free port of the loopback."""
    stub = GrafanaStub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def handle_request(self) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(text) if text else None
            stub.requests.append((self.command, self.path, body))
            fault = next((what for start, what in stub.faults.items() if path.startswith(start)), None)
            if fault == "hang":
                stub.let_go.wait(30)
                self.close_connection = True
            elif fault == "html":
                self.send(200, b"<html>a login page</html>", "text/html")
            elif isinstance(fault, str):
                self.send_response(307)
                self.send_header("Location", fault)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif isinstance(fault, tuple):
                self.respond(fault[0], {"message": fault[1].format(token=self.headers.get("Authorization", ""))})
            elif path == "/api/health":
                self.respond(200, {"commit": "abc", "database": "ok", "version": stub.version})
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.respond(401, {"message": "Invalid API key"})
            else:
                self.respond(*stub.answer(self.command, path, parse_qs(parts.query), body))

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_request

        def respond(self, status: int, value: Any) -> None:
            self.send(status, json.dumps(value).encode(), "application/json")

        def send(self, status: int, text: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stub
    finally:
        stub.let_go.set()
        server.shutdown()
        thread.join()
        server.server_close()
