"""Real proxies in front of the application, in other processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import trustme

from ..support.server import TIMEOUT, wait_until
from .clients import HERE, needed

NGINX = """
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory};
    fastcgi_temp_path {directory};
    proxy_temp_path {directory};
    scgi_temp_path {directory};
    uwsgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port} {listen};
        {options}
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
        }}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
    {options}
frontend clients
    bind 127.0.0.1:{port}
    default_backend application
backend application
    server application 127.0.0.1:{upstream}
"""

CADDY = """
{{
    admin off
    log {{
        level ERROR
    }}
    storage file_system {directory}
}}
http://127.0.0.1:{port} {{
    {options}
    reverse_proxy 127.0.0.1:{upstream}
}}
"""

APACHE = """
ServerRoot {directory}
ServerName 127.0.0.1
PidFile {directory}/pid
DefaultRuntimeDir {directory}
ErrorLog /dev/stderr
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule filter_module {modules}/mod_filter.so
LoadModule deflate_module {modules}/mod_deflate.so
Listen 127.0.0.1:{port}
ProxyPass / http://127.0.0.1:{upstream}/
{options}
"""


class Way(NamedTuple):
    """A URL of the application, and how to connect to it."""

    url: str
    http2: bool = False
    trust: ssl.SSLContext | bool = True

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            http1=not self.http2,
            http2=self.http2,
            verify=self.trust,
            trust_env=False,
            timeout=TIMEOUT,
        )


@contextlib.contextmanager
def nginx(
    upstream: int, directory: Path, *options: str, http2: bool = False
) -> Iterator[Way]:
    """Run nginx with some options. With HTTP/2 it uses TLS."""
    port = free_port()
    way = Way(f"http://127.0.0.1:{port}")
    listen = ""
    if http2:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(directory / "pem")
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        way = Way(f"https://127.0.0.1:{port}", http2, trust)
        listen = "ssl http2"
        options += (
            f"ssl_certificate {directory}/pem;",
            f"ssl_certificate_key {directory}/pem;",
        )
    configuration = NGINX.format(
        directory=directory,
        port=port,
        upstream=upstream,
        listen=listen,
        options="\n".join(options),
    )
    (directory / "nginx.conf").write_text(configuration)
    command = [needed("nginx"), "-e", "stderr", "-c", str(directory / "nginx.conf")]
    with running(command, port):
        yield way


@contextlib.contextmanager
def haproxy(upstream: int, directory: Path, *options: str) -> Iterator[Way]:
    """Run HAProxy with the timeouts that it requires, and some options."""
    port = free_port()
    configuration = HAPROXY.format(
        port=port, upstream=upstream, options="\n    ".join(options)
    )
    (directory / "haproxy.cfg").write_text(configuration)
    command = [needed("haproxy"), "-db", "-f", str(directory / "haproxy.cfg")]
    with running(command, port):
        yield Way(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def caddy(upstream: int, directory: Path, *options: str) -> Iterator[Way]:
    """Caddy with its defaults, but for some options."""
    program = needed("caddy")
    version = subprocess.check_output([program, "version"], text=True)
    if version.removeprefix("v").startswith("2.6."):
        pytest.skip("Caddy 2.6 completes responses that are aborted, as 2.10 does not")
    port = free_port()
    configuration = CADDY.format(
        directory=directory,
        port=port,
        upstream=upstream,
        options="\n    ".join(options),
    )
    (directory / "Caddyfile").write_text(configuration)
    command = ["env", f"XDG_CONFIG_HOME={directory}", program]
    command += ["run", "--config", str(directory / "Caddyfile")]
    with running(command, port):
        yield Way(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def apache(upstream: int, directory: Path, *options: str) -> Iterator[Way]:
    """Apache with its defaults, but for some options."""
    port = free_port()
    program = needed("apache2")
    configuration = APACHE.format(
        directory=directory,
        modules="/usr/lib/apache2/modules",
        port=port,
        upstream=upstream,
        options="\n".join(options),
    )
    (directory / "apache.conf").write_text(configuration)
    command = [program, "-D", "FOREGROUND", "-f", str(directory / "apache.conf")]
    with running(command, port):
        yield Way(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def express(upstream: int) -> Iterator[Way]:
    """Node with the middleware that compresses responses of Express."""
    if not (HERE / "node_modules").exists():
        pytest.skip("node_modules IS MISSING: npm ci --prefix tests/e2e")
    port = free_port()
    program = str(HERE / "compressing.mjs")
    with running([needed("node"), program, str(upstream), str(port)], port):
        yield Way(f"http://127.0.0.1:{port}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a process that listens on a port, and kill it with its children."""
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:

        def listens() -> bool:
            assert process.poll() is None, process.communicate()[1]
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
                return True
            return False

        try:
            wait_until(listens)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
