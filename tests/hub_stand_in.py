"""A server in a thread that answers as the Hugging Face hub does to huggingface_hub's pushes and downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_aStandInTokenOfNoAccount"


@dataclass
class Hub:
    """What the server holds and was asked.

    Attributes:
        url: Where it listens.
        role: What the token may do.
        refusals: The status to answer with, by the beginning of ``METHOD /path``.
        repositories: By name and branch, the files of the last commit.
        private: What was asked of each repository when it was made.
        messages: The messages of commits.
        requests: Every ``METHOD /path``.
    """

    url: str = ""
    role: str = "write"
    refusals: dict[str, int] = field(default_factory=dict)
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, str | None] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)

    def sha(self, name: str, branch: str) -> str:
        """A commit for a state of a branch."""
        files = self.repositories[name][branch]
        return hashlib.sha1(
            repr(sorted((path, hashlib.sha1(data).digest()) for path, data in files.items())).encode()
        ).hexdigest()

    def state(self, name: str, revision: str) -> dict[str, bytes]:
        """The files of a branch, named by itself or by its commit."""
        branches = self.repositories[name]
        return branches.get(revision) or next(
            (files for branch, files in branches.items() if self.sha(name, branch) == revision), {}
        )


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, value: object = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in (headers or {}).items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else b""
            path = unquote(urlsplit(self.path).path)
            request = f"{self.command} {path}"
            hub.requests.append(request)
            status = next((status for begin, status in hub.refusals.items() if request.startswith(begin)), None)
            if status is not None:
                self.answer({"error": "as the test wants it"}, status)
            elif path.startswith("/lfs/"):
                hub.large[path.removeprefix("/lfs/")] = body
                self.answer({})
            elif path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.answer({"error": "Invalid credentials"}, 401)
            elif path == "/api/whoami-v2":
                self.answer({"name": "someone", "type": "user", "auth": {"accessToken": {"role": hub.role}}})
            elif path == "/api/repos/create":
                self.create(json.loads(body))
            elif path.startswith("/api/models/"):
                self.model(path.removeprefix("/api/models/"), body)
            elif path.endswith(".git/info/lfs/objects/batch"):
                objects = json.loads(body)["objects"]
                actions = [
                    {**entry, "actions": {"upload": {"href": f"{hub.url}/lfs/{entry['oid']}"}}} for entry in objects
                ]
                self.answer({"transfer": "basic", "objects": actions})
            else:
                self.fetch(path)

        do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

        def create(self, fields: dict[str, str]) -> None:
            name = f"{fields['organization']}/{fields['name']}"
            if name in hub.repositories:
                self.answer({"error": "You already created this model repo", "url": f"{hub.url}/{name}"}, 409)
                return
            hub.repositories[name] = {"main": {".gitattributes": b"*.safetensors filter=lfs\n"}}
            hub.private[name] = fields.get("visibility") or ("private" if fields.get("private") else None)
            self.answer({"url": f"{hub.url}/{name}", "name": name})

        def model(self, path: str, body: bytes) -> None:
            name, _, rest = "/".join(path.split("/")[:2]), "", path.split("/")[2:]
            if name not in hub.repositories:
                self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
                return
            branches = hub.repositories[name]
            what, revision = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
            if what == "branch":
                taken = revision in branches
                branches.setdefault(revision, dict(branches["main"]))
                self.answer({"error": "Reference already exists"} if taken else {}, 409 if taken else 200)
            elif what == "revision":
                files = [{"rfilename": file} for file in hub.state(name, revision)]
                self.answer({"id": name, "sha": hub.sha(name, revision), "siblings": files})
            elif what == "tree":
                files = hub.state(name, revision).items()
                self.answer([{"type": "file", "path": file, "size": len(data), "oid": "0"} for file, data in files])
            elif what == "preupload":
                paths = [entry["path"] for entry in json.loads(body)["files"]]
                modes = [(file, "lfs" if file.endswith(".safetensors") else "regular") for file in paths]
                files = [{"path": file, "uploadMode": mode, "shouldIgnore": False} for file, mode in modes]
                self.answer({"files": files})
            elif what == "commit":
                self.commit(name, revision, [json.loads(line) for line in body.splitlines()])

        def commit(self, name: str, branch: str, lines: list[dict[str, dict[str, str]]]) -> None:
            files = dict(hub.repositories[name][branch])
            for line in lines:
                value = line["value"]
                if line["key"] == "header":
                    hub.messages.append(value["summary"])
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            hub.repositories[name][branch] = files
            oid = hub.sha(name, branch)
            self.answer({"commitUrl": f"{hub.url}/{name}/commit/{oid}", "commitOid": oid})

        def fetch(self, path: str) -> None:
            """Answer ``/ORG/NAME/resolve/REVISION/FILE``."""
            organisation, name, _, revision, file = path.strip("/").split("/", 4)
            data = hub.state(f"{organisation}/{name}", revision).get(file)
            if data is None:
                self.answer({}, 404, {"X-Error-Code": "EntryNotFound"})
                return
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": revision}
            self.answer(data, 200, headers)

    return Handler


@contextmanager
def running() -> Iterator[Hub]:
    """Run the server while the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
