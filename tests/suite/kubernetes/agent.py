"""Stands for an application: says what it was sent, and writes a field back.

    agent.py --port PORT [--requests N]     ends by itself after N requests
"""

import argparse
import http.server
import json
import os
import signal
import sys
import threading

arguments = argparse.ArgumentParser()
arguments.add_argument("--port", type=int, required=True)
arguments.add_argument("--requests", type=int)
arguments = arguments.parse_args()


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = 0

    def do_GET(self):
        body = json.dumps({"agent": os.environ.get("AGENT_NAME"), "path": self.path, "headers": dict(self.headers)})
        self.send_response(200)
        if self.path.startswith("/step"):
            self.send_header("cloakroom-set", "step=" + self.path.rsplit("/", 1)[-1])
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
        if self.path not in ("/alive", "/bye"):
            Agent.seen += 1
        if arguments.requests and Agent.seen >= arguments.requests:
            threading.Thread(target=server.shutdown).start()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False


server = Server(("0.0.0.0", arguments.port), Agent)
# Ends as a well-behaved server does: takes nothing on, and finishes what it has.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
sys.exit(0)
