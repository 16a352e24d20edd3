"""A login service: it creates and ends sessions by answering with one header, and needs no library for that.

    python3 examples/python/login.py
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Stands for your user directory and password check.
USERS = {"alice": {"password": "wonderland", "id": "u-456", "email": "alice@example.com"}}


class Login(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/logout":
            return self.answer(200, {"logged_out": True}, ("Cloakroom-End", "?1"))
        given = json.loads(body)
        user = USERS.get(given.get("name"))
        if user is None or user["password"] != given.get("password"):
            return self.answer(401, {"error": "unknown name or wrong password"})
        # A dictionary of structured fields; these values hold neither `"` nor `\`, so they stand as they are.
        start = f'user_id="{user["id"]}", auth_status="authenticated", email="{user["email"]}", features=("beta")'
        self.answer(200, {"welcome": given["name"]}, ("Cloakroom-Start", start))

    def answer(self, status, content, *headers):
        payload = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(payload))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 9001), Login).serve_forever()
