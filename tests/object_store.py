"""A server that speaks S3 on the loopback, with faults that a test asks for: refused reads, broken ones, counted bytes."""

import os
import sys
from contextlib import contextmanager
from threading import Event, Thread

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
    "NO_PROXY": "*",
    "no_proxy": "*",
}


class Store:
    """A running server; ``fault`` is called with each request's method and path, and says what goes wrong: None, or a name."""

    def __init__(self, host="127.0.0.1", port=0):
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log(self, *arguments):
                pass

        self._app = DomainDispatcherApplication(create_backend_app)
        self.fault = lambda method, path: None
        self.requests = []
        self.bytes_sent = 0
        self._server = make_server(host, port, self._answer, threaded=True, request_handler=Quiet)
        self.endpoint = f"http://{host}:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path, environ.get("HTTP_RANGE", "")))
        fault = self.fault(method, path)
        if fault == "deny":
            body = b"<Error><Code>AccessDenied</Code></Error>" if method != "HEAD" else b""
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        if fault == "kill":
            os._exit(9)
        found = list(self._app(environ, start_response))
        self.bytes_sent += sum(map(len, found)) if method == "GET" else 0
        if fault == "break":
            return broken(b"".join(found))
        return found

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def faults(self, fault):
        """Let things go wrong for a while."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = lambda method, path: None

    def client(self):
        import boto3

        return boto3.client("s3", endpoint_url=self.endpoint)

    def bucket(self, name):
        """Return a new, empty bucket's name."""
        client = self.client()
        client.create_bucket(Bucket=name)
        return name

    def put(self, bucket, key, content):
        self.client().put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, bucket, key):
        return self.client().get_object(Bucket=bucket, Key=key)["Body"].read()

    def keys(self, bucket):
        found = self.client().list_objects_v2(Bucket=bucket)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def put_folder(self, bucket, prefix, folder):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(bucket, f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def broken(content):
    """Yield half of what was promised, and break the connection."""
    yield content[: len(content) // 2]
    raise ConnectionResetError("planted")


if __name__ == "__main__":  # on a machine of its own: python object_store.py HOST PORT
    Store(sys.argv[1], int(sys.argv[2]))
    Event().wait()
