"""Secrets out, equality kept.

A secret becomes `⟦kind:digest⟧`, where the digest is a keyed HMAC: the same
secret gives the same placeholder under the same key, and nothing else can be
learned from it. Redaction happens before anything is hashed, written or told
to a model.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["PATTERNS", "PLACEHOLDER", "Redactor"]

PATTERNS: Mapping[str, str] = {
    # What keys of these kinds look like is documented by their issuers.
    "api_key": r"\b(?:sk|pk|rk|gsk|xai|fw|csk|r8|nvapi)[-_][A-Za-z0-9_-]{16,}"
    r"|\bAIza[0-9A-Za-z_-]{35}|\bhf_[A-Za-z0-9]{20,}",
    "url_password": r"(?<=://)[^\s/:@]{0,256}:[^\s/@]{1,256}(?=@)",
    "aws_key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "github_token": r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}",
    "slack_token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "bearer": r"(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{12,}",
    # Bounded, and begun only where a word begins: text from tools may be hostile.
    "jwt": r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,8192}"
    r"\.[A-Za-z0-9_-]{1,2048}",
    "private_key": r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----(?:(?!-----)[\s\S]){0,8192}"
    r"(?:-----END [A-Z ]{0,32}PRIVATE KEY-----)?",
}
PLACEHOLDER = re.compile(r"⟦([a-z_]+):[0-9a-f]{8}⟧")
_SECRETS = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PATTERNS.items()))


def _key() -> bytes:
    given = os.environ.get("AGENTKIT_REDACTION_KEY")
    return given.encode() if given else _process_key()


@functools.cache
def _process_key() -> bytes:
    """One key per process: what was hashed of a message in one run serves in the next."""
    return os.urandom(32)


@dataclass(frozen=True, slots=True)
class Redactor:
    """Replaces what looks like a secret.

    Attributes:
        key: The HMAC key. By default `AGENTKIT_REDACTION_KEY`, or a random one for this
            process: then equality holds between its traces and not with those of others.
    """

    key: bytes = field(default_factory=_key, repr=False)

    @property
    def key_id(self) -> str:
        """Names the key without telling it: placeholders compare only under the same one."""
        return hashlib.blake2b(self.key, digest_size=4, person=b"key_id").hexdigest()

    def __call__(self, text: str) -> str:
        """Return `text` with every secret replaced."""
        return _SECRETS.sub(self._placeholder, text)

    def secret(self, text: str, kind: str) -> str:
        """The placeholder of a text that is known to be a secret."""
        mac = hmac.new(self.key, text.encode("utf-8", "surrogatepass"), "sha256")
        return f"⟦{kind}:{mac.hexdigest()[:8]}⟧"

    def _placeholder(self, match: re.Match[str]) -> str:
        return self.secret(match.group(), match.lastgroup or "secret")
