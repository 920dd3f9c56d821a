"""An API that knows no tokens, and says what it was sent: `python tests/echo.py PORT`."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GO_ON = threading.Event()


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/stream":
            self.stream()
            return
        if self.path == "/go-on":
            GO_ON.set()
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = json.dumps({"path": self.path, "body": body, "headers": headers}).encode()
        self.send_response(403 if self.path == "/own-refusal" else 200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    do_POST = do_GET

    def stream(self) -> None:
        """One line, and the end when somebody asks for /go-on."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(b"first\n")
        self.wfile.flush()
        GO_ON.wait(60)

    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
