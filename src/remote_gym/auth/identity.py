"""Identity of a client, by its certificate or its token: the same rule for gRPC and for direct connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from remote_gym.auth.tokens import Tokens
from remote_gym.config.tls import HUB
from remote_gym.errors import DenialReason, NotPermitted
from remote_gym.tls.peer import COMMON_NAME

KINDS = ("URI", "DNS", "email")
"""Kinds of a certificate's names by which its holder is known, in order of preference.

IP addresses are none of them: they name a machine rather than a client.
"""
Names = Iterable[tuple[str, str]]
"""A certificate's names, each after its kind."""


@dataclass(frozen=True, kw_only=True)
class IdentityRule:
    """How a server knows its clients.

    Attributes:
        certificates: Whether TLS has verified a certificate of the client's.
        common_names: Whether the common name of a certificate counts that has no other name.
        tokens: Those that clients may show; None where none counts.
    """

    certificates: bool = False
    common_names: bool = False
    tokens: Callable[[], Tokens] | None = None

    def identify(self, names: Names, token: str) -> str:
        """The client's identity, its kind before it, such as ``"DNS:alice"`` or ``"token:alice"``.

        A token counts for more than a certificate, so that several people may share one.

        Args:
            names: Of the client's certificate.
            token: The client's; empty without one.

        Returns:
            Empty where the server asks for neither certificates nor tokens.

        Raises:
            NotPermitted: If the client shows nothing that it could be known by, saying what is missing.
        """
        if self.tokens is not None and token:
            name = self.tokens().name_of(token)
            if name is None:
                raise NotPermitted(
                    f"the client's token {token[:4]!r}... is not, or no longer, one of the server's",
                    reason=DenialReason.IDENTITY,
                )
            return f"token:{name}"
        if self.certificates:
            return self._by_certificate(list(names))
        if self.tokens is not None:
            raise NotPermitted(
                "the server knows its clients by tokens, and none came with the call; set token= or REMOTE_GYM_TOKEN "
                "to one that 'remote-gym token' made for it",
                reason=DenialReason.IDENTITY,
            )
        return ""

    def look(self) -> None:
        """See what has gone from the file of tokens, though nobody calls: it counts no more a while after that."""
        if self.tokens is not None:
            self.tokens()

    def is_revoked(self, identity: str) -> bool:
        """Whether it was a token's, and the last token of that name has been taken away."""
        kind, _, name = identity.partition(":")
        return kind == "token" and (self.tokens is None or name not in self.tokens().names)

    def digests_of(self, identity: str) -> list[bytes]:
        """Digests of the identity's tokens; empty where it is not known by one."""
        kind, _, name = identity.partition(":")
        return self.tokens().digests_of(name) if kind == "token" and self.tokens is not None else []

    def _by_certificate(self, names: list[tuple[str, str]]) -> str:
        if ("URI", HUB) in names:  # whoever has taken a hub over has its key, and is to have nothing else by it
            raise NotPermitted(
                "the client's certificate is a hub's, by which no session is opened; show a client's, as client.pem is",
                reason=DenialReason.IDENTITY,
            )
        for kind, name in names:
            if kind in KINDS:  # also one that is not chosen: no honest authority signs such
                _check(kind, name)
        for wanted in (*KINDS, *([COMMON_NAME] if self.common_names else [])):
            for kind, name in names:
                if kind == wanted and name:
                    _check(kind, name)
                    return f"{kind}:{name}"
        mend = "make one that has, by 'remote-gym certs client client-csr.json --host NAME'"
        common_name = next((name for kind, name in names if kind == COMMON_NAME and name), None)
        if common_name is None:
            raise NotPermitted(
                f"the client's certificate names nobody: it has no URI, DNS or email name; {mend}",
                reason=DenialReason.IDENTITY,
            )
        raise NotPermitted(
            f"the client's certificate has no URI, DNS or email name, and its common name {common_name!r:.200} counts "
            f"only for a server with common_names=True; {mend}",
            reason=DenialReason.IDENTITY,
        )


def _check(kind: str, name: str) -> None:
    # A name that ends at its NUL, or looks like another's in a log or a policy, would be taken for that one.
    if not (name.isascii() and name.isprintable()):
        raise NotPermitted(
            f"the client's certificate has the {kind} name {name!a:.200}, which holds a character that is "
            "no printable ASCII; make one without, and write domain names of other letters as xn--...",
            reason=DenialReason.IDENTITY,
        )
