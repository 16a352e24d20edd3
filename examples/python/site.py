"""A website whose visitors log in and out, without a session library and without a store.

cloakroom stands before it. Who asks stands in a header of the request; what is to be remembered, who has logged in
and who has logged out is said with a header of the response.

    python3 examples/python/site.py [PORT]
"""

import html
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

# Stands for your user directory and password check.
USERS = {"alice": {"password": "wonderland", "id": "u-456"}}

LOGIN = """<form method=post action=/login><input name=name><input name=password type=password>
<input name=return_to type=hidden value="{}"><button id=login>Log in</button></form>"""
BUTTON = "<form method=post action=/{0}><button id={0}>{1}</button></form>"


def here(path):
    """A path on this site: what names another host leads to the start page."""
    return path if path.startswith("/") and path[1:2] not in ("/", "\\") else "/"


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/login":
            return_to = here(parse_qs(url.query).get("return_to", ["/"])[0])
            return self.page("Log in", LOGIN.format(html.escape(return_to)))
        if url.path == "/account":
            # cloakroom turns away who has no session; a visitor's session is one of nobody.
            if self.user() is None:
                return self.go_to(f"/login?return_to={quote('/account')}")
            return self.page("Account", f"<p id=user>{html.escape(self.user())}</p>" + BUTTON.format("logout", "Log out"))
        self.page("Home", BUTTON.format("theme", "Dark") + "<a id=account href=/account>Account</a>")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == "/theme":
            # Without a session this begins one, of nobody; with one it changes it.
            verb = "Cloakroom-Set" if "Cloakroom-Session" in self.headers else "Cloakroom-Start"
            self.go_to("/", (verb, 'ui_preferences.theme="dark"'))
        elif self.path == "/login":
            form = {name: values[0] for name, values in parse_qs(body).items()}
            start = self.start(form)
            self.go_to(here(form.get("return_to", "/")), start) if start else self.page("Log in", LOGIN.format("/"), 401)
        elif self.path == "/token":
            start = self.start(json.loads(body))
            self.answer(200 if start else 401, "application/json", json.dumps({"welcome": start is not None}), start)
        else:
            self.go_to("/", ("Cloakroom-End", "?1"))

    def user(self):
        return self.headers.get("X-User-Id")

    def start(self, given):
        """The header that begins the session of who has given the right password, or none."""
        user = USERS.get(given.get("name"))
        if user is None or user["password"] != given.get("password"):
            return None
        return "Cloakroom-Start", f'user_id="{user["id"]}"'

    def page(self, title, body, status=200):
        theme = html.escape(self.headers.get("X-Theme", "light"))
        text = f'<!doctype html><title>{title}</title><body class="{theme}"><h1>{title}</h1>{body}'
        self.answer(status, "text/html; charset=utf-8", text)

    def go_to(self, path, *headers):
        self.answer(303, "text/plain", "", ("Location", path), *headers)

    def answer(self, status, kind, text, *headers):
        payload = text.encode()
        self.send_response(status)
        given = [header for header in headers if header]
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(payload))), *given):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    ThreadingHTTPServer(("127.0.0.1", port), Site).serve_forever()
