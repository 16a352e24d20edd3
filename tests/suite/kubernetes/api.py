"""Stands for an API server: keeps objects in a file, and takes what a service account with the chart's rights may do.

    api.py FOLDER      tls.crt, tls.key and objects.json are there; prints its port
"""

import http.server
import json
import pathlib
import ssl
import sys

folder = pathlib.Path(sys.argv[1])
file = folder / "objects.json"
SECRET = "/api/v1/namespaces/cloakroom/secrets"
WEBHOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/cloakroom-injector"


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def serve(self):
        objects = json.loads(file.read_text())
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length) or "null")
        path, method = self.path, self.command
        known = objects.get(path)
        if self.headers.get("authorization") != "Bearer of-the-account":
            return self.answer(401, {"message": "who are you?"})
        if method == "POST" and path == SECRET:
            path = f"{SECRET}/{body['metadata']['name']}"
            if path in objects:
                return self.answer(409, {"message": "already exists"})
        elif (method, path) not in {("GET", WEBHOOK), ("PATCH", WEBHOOK), ("GET", SECRET + "/tls"), ("PUT", SECRET + "/tls")}:
            return self.answer(403, {"message": f"cannot {method} {path}"})
        elif known is None:
            return self.answer(404, {"message": "not found"})
        elif method == "GET":
            return self.answer(200, known)
        elif method == "PUT" and body["metadata"].get("resourceVersion") != known["metadata"]["resourceVersion"]:
            return self.answer(409, {"message": "the object has been modified"})
        elif method == "PATCH":
            assert self.headers["content-type"] == "application/json-patch+json"
            for operation in body:
                *way, last = operation["path"].split("/")[1:]
                place = known
                for step in way:
                    place = place[int(step) if step.isdigit() else step]
                if operation["op"] == "test" and place[last] != operation["value"]:
                    return self.answer(422, {"message": "test failed"})
                place[last] = operation["value"]
            body = known
        body["metadata"]["resourceVersion"] = str(int((known or body)["metadata"].get("resourceVersion", 0)) + 1)
        objects[path] = body
        file.write_text(json.dumps(objects))
        self.answer(201 if method == "POST" else 200, body)

    do_GET = do_POST = do_PUT = do_PATCH = serve

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
