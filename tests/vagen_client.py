"""VAGEN's client by the bytes that it sends and reads."""

from __future__ import annotations

import contextlib
import email.parser
import http.client
import json
import secrets

from waiting import scaled


class Vagen:
    """What their client does."""

    def __init__(self, server, context=None, prefix="/vagen"):
        self.server, self.context, self.prefix = server, context, prefix
        self.headers = {}

    def send(self, path, data, boundary=None, body=None):
        boundary = boundary or f"gym_env_{secrets.token_hex(16)}"
        if body is None:
            head = 'Content-Disposition: form-data; name="data"\r\nContent-Type: application/json; charset=utf-8'
            body = f"--{boundary}\r\n{head}\r\n\r\n{json.dumps(data)}\r\n--{boundary}--\r\n".encode()
        kind = http.client.HTTPConnection if self.context is None else http.client.HTTPSConnection
        settings = {} if self.context is None else {"context": self.context}
        connection = kind("localhost", self.server.server.port, timeout=scaled(20.0), **settings)
        with contextlib.closing(connection):
            headers = {**self.headers, "Content-Type": f'multipart/form-data; boundary="{boundary}"'}
            connection.request("POST", self.prefix + path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers["content-type"], answer.read()

    def ask(self, path, data, boundary=None, status=200):
        found, kind, body = self.send(path, data, boundary)
        assert found == status, body
        if status != 200:
            return json.loads(body)["detail"]
        message = email.parser.BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        parts = [(part.get_content_type(), part.get_payload(decode=True)) for part in message.get_payload()]
        self.images = [content for kind, content in parts if kind.startswith("image/")]
        return json.loads(next(content for kind, content in parts if kind == "application/json"))

    def connect(self, seed=None, boundary=None, **config):
        found = self.ask("/connect", {"env_config": config, **({} if seed is None else {"seed": seed})}, boundary)
        self.session = found["session_id"]
        return found

    def call(self, method, boundary=None, status=200, session=None, **params):
        data = {"session_id": session or self.session, "method": method, "params": params}
        return self.ask("/call", data, boundary, status)
