"""A stand-in of Kaggle's server, as far as the official client asks it during a push.

The client is told to look for Kaggle on this machine and reaches it through this server as its
proxy, so any free port will do, and a request to any other place is seen and refused.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

HOST = "http://localhost"  # where KAGGLE_API_ENVIRONMENT=LOCALHOST sends the client


PAGE = 3


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Dataset:
    """The versions of a dataset, each as the files that a notebook would see."""

    request: dict[str, Any]
    versions: list[dict[str, bytes]]
    notes: list[str]
    polls_left: int

    @property
    def served(self) -> dict[str, bytes] | None:
        """The newest version that is unpacked."""
        unpacked = self.versions if self.polls_left <= 0 else self.versions[:-1]
        return unpacked[-1] if unpacked else None


def unpacked_dataset() -> Dataset:
    """A dataset that stands on Kaggle with one file."""
    return Dataset({}, [{"old.txt": b"old"}], [""], 0)


@dataclass
class Kaggle:
    """What the stand-in knows, was asked, and shall answer.

    Attributes:
        key: the account's API key; its token is ``token-of-`` and the key.
        user: whose account it is.
        polls: how often a dataset's new version is asked for before it is unpacked.
        faults: the answers to the next calls of a method, before it works again.
        drop: the name of a file whose upload fails.
        asked: the methods called, in order.
        bodies: everything that was sent here, raw.
        outside: requests to any other machine.
    """

    key: ClassVar[str] = "0123456789abcdef0123456789abcdef"
    user: str = "alice"
    polls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    competitions: set[str] = field(default_factory=set)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    kernels: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    faults: dict[str, list[Refusal]] = field(default_factory=dict)
    drop: str | None = None
    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    port: int = 0

    def environment(self, home: Path) -> dict[str, str]:
        """The variables that lead the client here, its files in a home of its own."""
        proxy = f"http://127.0.0.1:{self.port}"
        return {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"), ""),
            **dict.fromkeys(("HOME", "TMPDIR"), str(home)),
        }

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """What Kaggle would answer to a call."""
        self.asked.append(method)
        if self.faults.get(method):
            raise self.faults[method].pop(0)
        handler = getattr(self, f"_{method}", None)
        if handler is None:
            raise Refusal(404, f"the stand-in knows no {method}")
        found: dict[str, Any] = handler(body)
        return found

    def store(self, token: str, content: bytes) -> None:
        """Takes an uploaded file."""
        name, _ = self.blobs[token]
        if name == self.drop:
            raise Refusal(500, "Internal error")
        self.blobs[token] = (name, content)

    def file(self, ref: str, name: str) -> bytes:
        """A file of a dataset's newest unpacked version."""
        served = self.datasets[ref].served
        if served is None or name not in served:
            raise Refusal(404, "Not found")
        return served[name]

    def _dataset(self, body: dict[str, Any]) -> Dataset:
        ref = f"{body['ownerSlug']}/{body['datasetSlug']}"
        if ref not in self.datasets:
            raise Refusal(403, "Permission 'datasets.get' was denied")
        return self.datasets[ref]

    def _files(self, body: dict[str, Any]) -> dict[str, bytes]:
        """The uploaded files, archives unpacked into a folder of their name as Kaggle does."""
        files = {}
        for entry in body.get("files", []):
            name, content = self.blobs[entry["token"]]
            if not name.endswith(".zip"):
                files[name] = content
                continue
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for member in archive.infolist():
                    if not member.is_dir():
                        path = f"{name.removesuffix('.zip')}/{member.filename}"
                        files[path] = archive.read(member)
        return files

    def _IntrospectToken(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"active": body.get("token") == f"token-of-{self.key}", "username": self.user}

    def _GetDatasetStatus(self, body: dict[str, Any]) -> dict[str, Any]:
        dataset = self._dataset(body)
        dataset.polls_left -= 1
        return {"status": "READY" if dataset.polls_left < 0 else "BLOBS_RECEIVED"}

    def _GetDatasetMetadata(self, body: dict[str, Any]) -> dict[str, Any]:
        self._dataset(body)
        return {"info": {"datasetSlug": body["datasetSlug"], "licenses": [{"name": "CC0-1.0"}]}}

    def _ListDatasetFiles(self, body: dict[str, Any]) -> dict[str, Any]:
        served = self._dataset(body).served or {}
        return self._page("datasetFiles", [{"name": name} for name in sorted(served)], body)

    def _DownloadDataset(self, body: dict[str, Any]) -> dict[str, Any]:
        self._dataset(body)
        return {"location": f"/files/{body['ownerSlug']}/{body['datasetSlug']}/{body['fileName']}"}

    def _ListDatasets(self, body: dict[str, Any]) -> dict[str, Any]:
        refs = sorted(self.datasets)
        return self._page("datasets", [{"ref": ref, "title": ref} for ref in refs], body)

    def _page(self, key: str, items: list[Any], body: dict[str, Any]) -> dict[str, Any]:
        """Short pages, to see that all of them are asked for."""
        start = int(body.get("pageToken") or 0)
        following = str(start + PAGE) if start + PAGE < len(items) else ""
        return {key: items[start : start + PAGE], "nextPageToken": following}

    def _StartBlobUpload(self, body: dict[str, Any]) -> dict[str, Any]:
        token = f"blob-{len(self.blobs)}"
        self.blobs[token] = (body["name"], b"")
        return {"token": token, "createUrl": f"{HOST}/upload/{token}"}

    def _CreateDataset(self, body: dict[str, Any]) -> dict[str, Any]:
        ref = f"{body['ownerSlug']}/{body['slug']}"
        if ref in self.datasets:
            return {"status": "error", "error": f"{ref} is already in use by a dataset"}
        self.datasets[ref] = Dataset(body, [self._files(body)], [""], self.polls[ref])
        return {"status": "ok", "ref": ref, "url": f"{HOST}/datasets/{ref}"}

    def _CreateDatasetVersion(self, body: dict[str, Any]) -> dict[str, Any]:
        dataset = self._dataset(body)
        if dataset.served is None:
            raise Refusal(403, "Permission 'datasets.update' was denied")
        dataset.versions.append(self._files(body["body"]))
        dataset.notes.append(body["body"]["versionNotes"])
        dataset.polls_left = self.polls[f"{body['ownerSlug']}/{body['datasetSlug']}"]
        return {"status": "ok", "url": f"{HOST}/datasets/{body['datasetSlug']}"}

    def _SaveKernel(self, body: dict[str, Any]) -> dict[str, Any]:
        versions = self.kernels[body["slug"]]
        versions.append(body)
        ready = {ref for ref, dataset in self.datasets.items() if dataset.served is not None}
        known = {"Dataset": ready, "Competition": self.competitions, "Kernel": self.kernels.keys()}
        invalid = {
            f"invalid{kind}Sources": [
                ref for ref in body.get(f"{kind.lower()}DataSources", []) if ref not in there
            ]
            for kind, there in known.items()
        }
        url = f"{HOST}/code/{body['slug']}"
        return {"ref": body["slug"], "url": url, "versionNumber": len(versions), **invalid}


class KaggleServer:
    """Runs the stand-in in a thread while the block lasts."""

    def __init__(self) -> None:
        self.kaggle = Kaggle()

    def __enter__(self) -> Kaggle:
        handler = type("Handler", (_Handler,), {"kaggle": self.kaggle})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.kaggle.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self.kaggle

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    kaggle: Kaggle

    def do_POST(self) -> None:
        body = self._body()
        self.kaggle.bodies.append(body)
        method = self._path().rpartition("/")[2]

        def work() -> None:
            if "Authorization" not in self.headers and method != "IntrospectToken":
                raise Refusal(401, "Unauthenticated")
            found = self.kaggle.answer(method, json.loads(body))
            if "location" in found:
                self._reply(302, b"", location=HOST + found["location"])
            else:
                self._reply(200, json.dumps(found).encode())

        self._answering(work)

    def do_PUT(self) -> None:
        content = self._body()
        self.kaggle.bodies.append(content)

        def work() -> None:
            self.kaggle.store(self._path().rpartition("/")[2], content)
            self._reply(200, b"{}")

        self._answering(work)

    def do_GET(self) -> None:
        _, _, owner, slug, name = self._path().split("/", 4)

        def work() -> None:
            content = self.kaggle.file(f"{owner}/{slug}", name)
            self._reply(200, content, content_type="application/octet-stream")

        self._answering(work)

    def do_CONNECT(self) -> None:
        self.kaggle.outside.append(self.path)
        self._reply(403, b"")

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _path(self) -> str:
        address = urlsplit(self.path)
        if f"{address.scheme}://{address.netloc}" != HOST:
            self.kaggle.outside.append(self.path)
        return address.path

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answering(self, work: Any) -> None:
        try:
            work()
        except Refusal as refusal:
            message = {"code": refusal.status, "message": str(refusal)}
            self._reply(refusal.status, json.dumps(message).encode())

    def _reply(
        self,
        status: int,
        content: bytes,
        *,
        content_type: str = "application/json",
        location: str | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)
