"""Secrets out, equality kept.

A secret becomes `⟦kind:digest⟧`, where the digest is a keyed HMAC: the same
secret gives the same placeholder under the same key, and nothing else can be
learned from it. Redaction happens before anything is hashed or written. What is redacted
already stays as it is.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from agentkit.errors import ConfigurationError

__all__ = ["PATTERNS", "PLACEHOLDER", "Paths", "Redactor", "below"]

# A key begins where no ASCII word goes on: `\b` would not see one after a Chinese character.
_BEGIN = r"(?<![A-Za-z0-9_])"
# Names have such prefixes, too: a key has letters and digits without a separator in them.
# Everything is bounded and begins where a word begins: text from tools may be hostile.
_RANDOM = (
    r"(?=[A-Za-z0-9_-]{0,64}?(?:(?=[A-Za-z]{0,15}[0-9])[A-Za-z0-9]{16}|[A-Za-z0-9]{24}"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}))"
)
# What keys of these kinds look like is documented by their issuers.
PATTERNS: Mapping[str, str] = {
    "api_key": rf"{_BEGIN}(?:(?:sk|pk|rk|gsk|xai|fw|csk|r8|nvapi)[-_]{_RANDOM}[A-Za-z0-9_-]{{16,}}"
    r"|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{20,})",
    # A colon and a number are a port; a password may have a slash or an @ in it.
    "url_password": r"(?<=://)[^\s/:@]{0,256}:(?![0-9]{1,5}[/?#])[^\s@]{1,256}"
    r"(?=@)(?:@[^\s@,;]{1,64}(?=@)){0,8}",
    "aws_key": rf"{_BEGIN}(?:AKIA|ASIA)[0-9A-Z]{{16}}(?![A-Za-z0-9_])",
    "github_token": rf"{_BEGIN}(?:gh[pousr]_[A-Za-z0-9]{{20,}}|github_pat_[A-Za-z0-9_]{{20,}})",
    "slack_token": rf"{_BEGIN}xox[abeoprs]-[A-Za-z0-9-]{{10,}}",
    "bearer": r"(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{12,}",
    "jwt": r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,8192}"
    r"\.[A-Za-z0-9_-]{1,2048}",
    "private_key": r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?!-----)[\s\S]){0,32768}(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----)?",
    "token": _BEGIN
    + "(?:"
    + "|".join(
        (
            r"gl(?:pat|dt|rt|ptt|soat)-[A-Za-z0-9_-]{20,}",  # GitLab
            r"npm_[A-Za-z0-9]{36}",
            r"pypi-AgE[A-Za-z0-9_-]{50,}",
            r"do[opr]_v1_[0-9a-f]{64}",  # DigitalOcean
            r"dckr_[po]at_[A-Za-z0-9_-]{20,}",  # Docker
            r"lin_api_[A-Za-z0-9]{32,}",  # Linear
            r"ntn_[A-Za-z0-9]{40,}",  # Notion
            r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",  # Postman
            r"shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}",  # Shopify
            r"sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}",  # Square
            r"key-[0-9a-f]{32}",  # Mailgun
            r"sntry[su]_[A-Za-z0-9_+/=-]{40,}",  # Sentry
            r"pcsk_[A-Za-z0-9_]{40,}",  # Pinecone
            r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}",  # LangSmith
            r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{20,}",  # Tavily
            r"pplx-[A-Za-z0-9]{40,}",  # Perplexity
            r"figd_[A-Za-z0-9_-]{38,}",  # Figma
            r"NRAK-[A-Z0-9]{27}",  # New Relic
            r"gl(?:sa_[A-Za-z0-9]{32}_[0-9A-Fa-f]{8}|c_[A-Za-z0-9+/=]{32,})",  # Grafana
            r"sbp_[0-9a-f]{40}",  # Supabase
            r"whsec_[A-Za-z0-9+/=]{24,}",  # Stripe and others
            r"GOCSPX-[A-Za-z0-9_-]{28}",  # Google
            r"xapp-[0-9]-[0-9A-Za-z-]{30,}",  # Slack
            r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}",  # SendGrid
            r"hv[sb]\.[A-Za-z0-9_-]{24,}",  # Vault
            r"ya29\.[A-Za-z0-9_-]{20,}",  # Google
            r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
            r"dapi[0-9a-f]{32}",  # Databricks
            r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram
        )
    )
    + ")",
}
PLACEHOLDER = re.compile(r"⟦([a-z_]+):[0-9a-f]{8}⟧")

# What a text must have to hold a secret of a kind: looking for that costs a hundredth of
# what the patterns cost, and few texts have it. By a character of each that few texts have:
# one is found in a twentieth of the time of several.
_MARKS: Mapping[str, Mapping[str, str]] = {
    "I": {"AIza": "api_key", "IA": "aws_key"},
    "/": {"://": "url_password"},
    "e": {"earer ": "bearer"},
    "J": {"eyJ": "jwt"},
    "G": {"-----BEGIN": "private_key", "SG.": "token", "AGE-SECRET": "token"},
    "v": {"hvs.": "token", "hvb.": "token"},
    "9": {"ya29.": "token"},
    "d": {"dapi": "token"},
    "A": {":AA": "token"},
}
_JOINED = re.compile(
    r"[-_](?=[A-Za-z0-9_+/=-]{9})(?<=(?:sk|pk|rk|ai|fw|r8|pi|hf|hp|ho|hu|hs|hr|at|x[abeoprs]"
    # of tokens
    r"|dt|rt|tt|pm|v1|tn|AK|ca|pa|ss|tp|sp|ey|ys|yu|v2|ly|lx|gd|sa|lc|bp|ec|PX|pp).)"
)
"""How the other keys begin: the end of a short word, joined to a long one."""
_FLAG = {kind: 1 << number for number, kind in enumerate(PATTERNS)}
_FLAGS = tuple(
    (char, tuple((mark, _FLAG[kind]) for mark, kind in marks.items()))
    for char, marks in _MARKS.items()
)
_JOINED_FLAGS = sum(_FLAG[kind] for kind in ("api_key", "github_token", "slack_token", "token"))
_SHORTEST = 15
"""Characters of the shortest secret that the patterns know, but for those with an `@` after."""
_BINARY = re.compile(
    # One run, or the lines that encoders make (RFC 1421, RFC 2045) and a last one, which might
    # be a key after many lines of something else. Possessive: it is looked at once.
    r"(?:data:[\w.+-]+/[\w.+-]+;base64,)?"
    r"(?:(?:[A-Za-z0-9+/]{64}\r?\n)++|(?:[A-Za-z0-9+/]{76}\r?\n)++)?+"
    rf"(?!{PATTERNS['aws_key']}|{PATTERNS['api_key']})[A-Za-z0-9+/=]*+(?:\r?\n)?"
)
_ASCII = "".join(map(chr, range(128)))
_LONG = 4096
"""Characters of base64 from which on text is taken for binary data, which holds no key."""

_keys: dict[str, None] = {}
"""The last keys that agentkit has read, for this process: clients are made for each request."""
_KEYS, _SHORTEST_KEY = 256, 8

Paths: TypeAlias = tuple[tuple[str, ...], ...]
"""Places of secret fields, each as the segments that are still to be followed."""


def _key() -> bytes:
    given = os.environ.get("AGENTKIT_REDACTION_KEY")
    return given.encode() if given else _process_key()


@functools.cache
def _process_key() -> bytes:
    """One key per process: what was hashed of a message in one run serves in the next."""
    return os.urandom(32)


@functools.cache
def _known(flags: int) -> re.Pattern[str]:
    """Return the kinds of these flags, after the pattern of existing placeholders."""
    kinds = [(kind, pattern) for kind, pattern in PATTERNS.items() if flags & _FLAG[kind]]
    one_of = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in kinds)
    return re.compile(f"⟦[a-z_]+:[0-9a-f]{{8}}⟧|{one_of}")


def _suspected(text: str) -> int:
    """Return the kinds of secrets that a text may hold, as flags."""
    if len(text) < _SHORTEST and "@" not in text:
        return 0
    flags = 0
    for char, marks in _FLAGS:
        if char in text:
            for mark, flag in marks:
                if mark in text:
                    flags |= flag
    if ("-" in text or "_" in text) and _JOINED.search(text):
        flags |= _JOINED_FLAGS
    return flags


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Redactor:
    """Replaces what looks like a secret, and what stands in a secret field.

    Example:
        >>> redact = Redactor(patterns={"customer": r"C-[0-9]{6}"}, fields=["*.ssn"], key="k")
        >>> redact("C-123456 called")
        '⟦customer:7c23254b⟧ called'
        >>> redact('{"ada": {"ssn": "078-05-1120"}}')
        '{"ada":{"ssn":"⟦field:d681a947⟧"}}'

    Args:
        patterns: Regular expressions of your own secrets by kind; those of `PATTERNS` are
            always looked for. A kind is made of small letters and `_`.
        fields: Where secrets stand in JSON values, from their root: `user.password`. `*` is
            any one segment (also the index in a list), `**` any number of them. They hold in
            arguments, results and outputs, also where these are JSON text. In text that is
            not quite JSON, what follows the quoted name of the last segment is taken out.
        key: The HMAC key. By default `AGENTKIT_REDACTION_KEY`, or a random one for this
            process: then equality holds between its traces and not with those of others.

    Raises:
        ConfigurationError: A kind, a pattern, a field or the key cannot be used.
    """

    patterns: Mapping[str, str | re.Pattern[str]] = field(default_factory=dict[str, str])
    fields: Sequence[str] = ()
    key: bytes | str = field(default_factory=_key, repr=False)
    paths: Paths = field(init=False, repr=False)
    rules: str = field(init=False, repr=False)
    """Names all that decides what a text becomes: names of blobs hold for equal rules."""
    _own: tuple[tuple[str, re.Pattern[str]], ...] = field(init=False, repr=False)
    _loose: re.Pattern[str] | None = field(init=False, repr=False)
    _secret: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check what was given, before anything depends on it."""
        key: Any = self.key.encode() if isinstance(self.key, str) else self.key
        if not isinstance(key, bytes) or not key:
            raise ConfigurationError("Redactor(key=…): expected bytes or text, not empty.")
        if isinstance(self.fields, str):
            raise ConfigurationError(f"Redactor(fields={self.fields!r}): expected a list of paths.")
        patterns: Any = self.patterns
        if not isinstance(patterns, Mapping):
            raise ConfigurationError(
                f"Redactor(patterns={self.patterns!r}): expected {{kind: regular expression}}."
            )
        own = tuple((kind, _compiled(kind, given)) for kind, given in self.patterns.items())
        paths = tuple(_path(one) for one in self.fields)
        rules = repr((key, [(kind, one.pattern, one.flags) for kind, one in own], paths))
        for name, value in (
            ("paths", paths),
            ("rules", hashlib.blake2b(rules.encode(), digest_size=8).hexdigest()),
            ("_own", own),
            ("_loose", _loose([path[-1] for path in paths if "*" not in path[-1]])),
            ("_secret", key),
        ):
            object.__setattr__(self, name, value)

    @property
    def key_id(self) -> str:
        """Names the key without telling it: placeholders compare only under the same one."""
        return hashlib.blake2b(self._secret, digest_size=4, person=b"key_id").hexdigest()

    def __call__(self, text: str) -> str:
        """Return `text` with every secret replaced, and what looks like one."""
        if self.paths or self._own:
            text = self._without_own(text)
        flags = _suspected(text)
        if not flags or (len(text) > _LONG and _BINARY.fullmatch(text)):
            return text
        return _known(flags).sub(self._placeholder, text)

    def known(self, text: str) -> str:
        """Return `text` with only those secrets replaced that are known to be some.

        They are those of `patterns` and `fields`, and keys that agentkit has read itself. For
        models: a name that looks like a key must reach them.
        """
        text = self._without_own(text)
        for key in tuple(_keys):
            if key in text:
                text = text.replace(key, self.secret(key, "api_key"))
        return text

    def _without_own(self, text: str) -> str:
        if self.paths:
            text = self._without_fields(text)
        for kind, pattern in self._own:
            text = pattern.sub(functools.partial(self._placed, kind), text)
        return text

    def passes(self, text: str) -> bool:
        """Whether there is certainly nothing to be replaced in a text, or in texts as JSON."""
        return not (self._own or self.paths or _suspected(text))

    def secret(self, text: str, kind: str) -> str:
        """Return the placeholder of a text that is known to be a secret."""
        if PLACEHOLDER.fullmatch(text):
            return text
        mac = hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), "sha256")
        return f"⟦{kind}:{mac.hex()[:8]}⟧"

    def of_field(self, value: Any) -> Any:
        """Return the placeholder of the value of a secret field."""
        if value is None:
            return None
        try:
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        except (TypeError, ValueError, RecursionError):
            text = repr(value)
        return self.secret(text, "field")

    def open_end(self, text: str) -> int:
        """From where on `text`, of which more may come, cannot be redacted yet."""
        if self._own or self.paths:
            return 0  # what these match may begin anywhere
        begun = text.rfind("-----BEGIN")
        if begun >= 0 and text.count("-----", begun) < 4:  # around BEGIN …, and around END …
            return begun
        words = text.rsplit(None, 1)
        last = words[-1] if words and not text[-1].isspace() else ""
        start = len(text) - len(last)
        if "://" not in last:
            start += len(last.rstrip(_ASCII))  # all but passwords in addresses is ASCII
        before = text[:start].rstrip()
        return len(before) - len("bearer") if before.endswith("earer") else start

    def _placeholder(self, match: re.Match[str]) -> str:
        return self.secret(match.group(), match.lastgroup) if match.lastgroup else match.group()

    def _placed(self, kind: str, match: re.Match[str]) -> str:
        """Return the placeholder of a match, unless that is part of a placeholder."""
        text = match.string
        start = text.rfind("⟦", max(0, match.start() - 64), match.start() + 1)
        inside = PLACEHOLDER.match(text, start) if start >= 0 else None
        if inside is not None and match.end() <= inside.end():
            return match.group()
        return self.secret(match.group(), kind)

    def _without_fields(self, text: str) -> str:
        if text.lstrip()[:1] in ("{", "["):
            changed = False

            def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
                nonlocal changed
                changed |= len({name for name, _ in pairs}) < len(pairs)  # one may be hidden
                return dict(pairs)

            try:
                value = json.loads(text, object_pairs_hook=read)
            except (ValueError, RecursionError):
                pass
            else:
                hidden = self._hidden(value, self.paths)
                if not changed and hidden == value:
                    return text
                return json.dumps(hidden, ensure_ascii=False, separators=(",", ":"))
        if self._loose is None:
            return text
        return self._loose.sub(self._named, text)

    def _hidden(self, value: Any, paths: Paths) -> Any:
        """Return a JSON value with placeholders at these paths."""
        if isinstance(value, str):
            return self._without_fields(value)
        if isinstance(value, dict):
            items = cast("dict[str, Any]", value).items()
            return {name: self._at(name, item, paths) for name, item in items}
        if isinstance(value, list):
            items = enumerate(cast("list[Any]", value))
            return [self._at(str(index), item, paths) for index, item in items]
        return value

    def _at(self, name: str, item: Any, paths: Paths) -> Any:
        further = below(paths, name)
        return self.of_field(item) if () in further else self._hidden(item, further)

    def _named(self, match: re.Match[str]) -> str:
        """Match what follows a secret field's name, in quotes: JSON may stand in JSON."""
        quote = match["quote"] or match["around"]
        value = match["plain"] if match["text"] is None else match["text"]
        return f"{match['name']}{quote}{self.of_field(value)}{quote}"


def remember_key(key: str) -> None:
    """Have `Redactor.known` replace a key that agentkit has read to send it."""
    if len(key) >= _SHORTEST_KEY and key not in _keys:
        if len(_keys) >= _KEYS:
            del _keys[next(iter(_keys))]
        _keys[key] = None


def below(paths: Paths, name: str) -> Paths:
    """Return the rest of the paths below a field or an index; `()` for one that ends there."""
    if not paths:
        return ()
    further: list[tuple[str, ...]] = []
    for path in paths:
        while path and path[0] == "**":
            further.append(path)
            path = path[1:]
        if path and path[0] in (name, "*"):
            further.append(path[1:])
    return tuple(further)


def _compiled(kind: str, given: Any) -> re.Pattern[str]:
    if not re.fullmatch("[a-z_]+", kind):
        raise ConfigurationError(
            f"Redactor(patterns={{{kind!r}: …}}): a kind is made of small letters and '_'."
        )
    try:
        pattern: Any = re.compile(given)
    except (re.error, TypeError) as error:
        raise ConfigurationError(
            f"Redactor(patterns={{{kind!r}: {given!r}}}) is no regular expression: {error}."
        ) from error
    if not isinstance(pattern.pattern, str) or pattern.search(""):
        raise ConfigurationError(
            f"Redactor(patterns={{{kind!r}: {given!r}}}): the pattern must be of text, and must "
            "not match where there is none."
        )
    return pattern


def _path(given: Any) -> tuple[str, ...]:
    path = tuple(given.split(".")) if isinstance(given, str) else ()
    if not all(path) or not path or path[-1] == "**":
        raise ConfigurationError(
            f"Redactor(fields=[{given!r}]): expected a path such as 'user.password' or '*.ssn'."
        )
    return path


def _loose(names: Sequence[str]) -> re.Pattern[str] | None:
    """Match what follows one of these names in quotes, as in JSON, nested JSON and Python."""
    if not names:
        return None
    name = "|".join(re.escape(one) for one in sorted(names, key=len, reverse=True))
    # Bounded: each text in a text doubles the backslashes, and a hostile one has any number.
    quoted = r"(?P<quote>\\{0,63}[\"'])(?P<text>(?:(?!(?P=quote))(?:\\.|.))*)(?P=quote)?"
    plain = r"[{\[][^{}\[\]]*[}\]]?|[^\s,}\]\"'{\[\\]+"
    return re.compile(
        rf"(?P<name>(?P<around>\\{{0,63}}[\"'])(?:{name})(?P=around)\s*:\s*)(?:{quoted}|(?P<plain>{plain}))",
        re.DOTALL,
    )
