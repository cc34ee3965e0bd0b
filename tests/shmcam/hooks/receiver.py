"""An HTTP server that notes what it gets, and answers as told."""

import base64
import hashlib
import hmac
import json
import threading
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """`with Receiver() as receiver`: requests are in `got`; `statuses` are the next answers, then 200."""

    def __init__(self, port=0):
        self.got, self.statuses, self.headers = [], [], {}
        self.refuse_all = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.refuse_all or (receiver.statuses.pop(0) if receiver.statuses else 200)
                receiver.got.append((self.path, dict(self.headers.items()), body, status))
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def events(self, status=200):
        """What was accepted, as JSON objects."""
        return [json.loads(body) for _, _, body, answered in list(self.got) if answered == status]


def verify(secret, headers, body):
    """As a receiver does it by the text of standardwebhooks.com."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    want = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(word == f"v1,{want}" for word in headers["webhook-signature"].split(" "))


def parts_of(headers, body):
    """The parts of a form by name: (file name, type, bytes), by Python's own parser of mails."""
    text = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body
    message = message_from_bytes(text, policy=policy.HTTP)
    return {
        part.get_param("name", header="content-disposition"): (
            part.get_filename(),
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in message.iter_parts()
    }
