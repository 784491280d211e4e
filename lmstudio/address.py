"""Where a server is, in any spelling."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

import attrs

from .errors import LMStudioTypeError, LMStudioValueError, shown
from .wire.checks import encodable
from .wire.ports import DEFAULT_PORT

_TLS = {"http": False, "ws": False, "https": True, "wss": True}
#: Ends of names that only networks at home or at work have, or one machine for itself:
#: reserved by RFC 6761, 6762 and 8375 and by ICANN, the last one only in use for it.
_LOCAL_ENDS = (".localhost", ".local", ".home.arpa", ".internal", ".lan")
#: Addresses that providers and VPNs such as Tailscale give out (RFC 6598).
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_RIGHT = (
    "write host:port, http://host:port, ws://host:port, or the same with https or wss"
)


@attrs.frozen
class Address:
    """The address of a server.

    Attributes:
        host: Name or IP address, IPv6 without brackets.
        port: 1 to 65535.
        tls: Whether it speaks TLS.
        prefix: Path before the namespaces, ``""`` or such as ``"/models"``.
    """

    host: str = attrs.field()
    port: int = DEFAULT_PORT
    tls: bool = False
    prefix: str = ""

    @host.validator
    def _check_host(self, _: object, host: str) -> None:
        problem = _problem_of_host(host)
        if problem is not None:
            raise _wrong(host, problem)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host``, ``host:port``, or a URL of http, https, ws or wss.

        A port that is not given is 1234, or 443 with TLS.

        Raises:
            LMStudioValueError: The text is none of these.
        """
        if not isinstance(text, str):
            raise LMStudioTypeError(f"a server address is text, not {shown(text)}")
        spelled = text.strip()
        if not re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", spelled):
            spelled = f"ws://{_bracketed(spelled)}"
        try:
            parts = urlsplit(spelled)
            port = parts.port
        except ValueError as exc:
            raise _wrong(text, str(exc)) from None
        problem = _problem(parts) or ("the port is 0" if port == 0 else None)
        if problem is not None:
            raise _wrong(text, problem)
        tls = _TLS[parts.scheme]
        return cls(
            parts.hostname or "",
            port or (443 if tls else DEFAULT_PORT),
            tls,
            parts.path.rstrip("/"),
        )

    @property
    def netloc(self) -> str:
        """``host:port``, IPv6 hosts in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The base of the sockets, such as ``"ws://127.0.0.1:1234"``."""
        return f"{'wss' if self.tls else 'ws'}://{self.netloc}{self.prefix}"

    @property
    def http_url(self) -> str:
        """The same for plain HTTP requests."""
        return f"{'https' if self.tls else 'http'}://{self.netloc}{self.prefix}"

    def socket_url(self, namespace: str) -> str:
        """The URL of a namespace's socket."""
        return f"{self.url}/{namespace}"

    @property
    def is_private(self) -> bool:
        """Whether no proxy can be meant for it: this machine, or a private network.

        Names are judged by their looks alone; none is looked up.
        """
        name = self.host.lower().removesuffix(".")
        try:
            found = ipaddress.ip_address(name)
        except ValueError:
            if "." not in name or name.endswith(_LOCAL_ENDS):
                return True  # a bare name is a neighbour
            try:  # spelled as in 127.1
                found = ipaddress.ip_address(socket.inet_aton(name))
            except OSError:
                return False
        found = getattr(found, "ipv4_mapped", None) or found
        return found.is_private or (found.version == 4 and found in _SHARED)

    def __str__(self) -> str:
        return self.url


def _bracketed(text: str) -> str:
    """A bare IPv6 address gets the brackets that URLs want."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return text
    return f"[{text}]"


def _wrong(text: str, problem: str) -> LMStudioValueError:
    # What stands before an @ may be a secret.
    seen = re.sub(r"(?s)^(\w+://)?.*@", r"\1…@", text)
    return LMStudioValueError(
        f"{shown(seen)} is no server address: {problem}; {_RIGHT}"
    )


def _problem(parts: SplitResult) -> str | None:
    if parts.scheme not in _TLS:
        return f"the scheme {shown(parts.scheme)} is unknown"
    if parts.username is not None:
        return "it has a user name; a token goes into api_token"
    problem = _problem_of_host(parts.hostname or "")
    if problem is not None:
        return problem
    if re.search(r"[^!-~]", parts.path):
        return "its path has characters that must be written as %xx"
    if parts.query or parts.fragment:
        return "it has a query or a fragment"
    return None


def _problem_of_host(host: str) -> str | None:
    if not host or re.search(r"[\s,;]", host):
        return "it has no host"
    if host.isdigit():
        return "it is a number without a host"
    if re.search(r"[\x00-\x1f\x7f]", host):
        return "its host has control characters"
    if not encodable(host):
        return "its host has a lone surrogate, which no encoding has"
    if len(host) > 255:
        return "its host has more than 255 characters"
    return None
