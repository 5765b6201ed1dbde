"""Redaction: what is taken out, where, and that it never reaches a byte of a trace."""

from __future__ import annotations

import json
import re
import string
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, ChatModel, ChatSettings, Redactor, RunContext, Trace, tool
from agentkit.errors import AgentKitError, ConfigurationError
from agentkit.redaction import PATTERNS
from agentkit.testing import ChatServer, ScriptedModel, reply
from agentkit.trace import to_trace
from agentkit.trace.naming import canonical, packed

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"ssn": "1"}', '{"ssn": "1"}'),
        ('{"ada": {"ssn": "1"}}', '{"ada":{"ssn":"X"}}'),
        ('[{"ssn": 1}, {"n": 2}]', '[{"ssn":"X"},{"n":2}]'),
        ('{"user": {"password": {"a": "b"}}}', '{"user":{"password":"X"}}'),
        ('{"a": {"b": {"pin": 1}}, "pin": 2}', '{"a":{"b":{"pin":"X"}},"pin":"X"}'),
        ('{"pin": null}', '{"pin": null}'),
        ('{"text": "{\\"pin\\": 7}"}', '{"text":"{\\"pin\\":\\"X\\"}"}'),
        ('{"a": {"pin": 1}, "a": 2}', '{"a":2}'),
        ('{"pin": "12', '{"pin": "X"'),
        ("it is {'pin': '12'}", "it is {'pin': 'X'}"),
        ("the pin: 12", "the pin: 12"),
    ],
)
def test_secret_fields(text: str, left: str) -> None:
    """`*` is one segment, `**` any number; what is not quite JSON is searched for the name."""
    redact = Redactor(fields=["*.ssn", "user.password", "**.pin"], key="k")
    assert re.sub("⟦field:[0-9a-f]{8}⟧", "X", redact(text)) == left
    assert redact(redact(text)) == redact(text)


def test_fields_of_values_that_are_no_text() -> None:
    """Arguments, outputs and parameters are searched from their root."""
    redact = Redactor(fields=["user.*.ssn"], key="k")
    value = {"user": [{"ssn": 1, "name": "Ada"}], "ssn": 1}
    assert packed(value, redact) == {
        "user": [{"ssn": redact.of_field(1), "name": "Ada"}],
        "ssn": 1,
    }


def test_own_patterns_come_besides_the_known_ones() -> None:
    """Each kind names its placeholder, and equal secrets have equal ones."""
    redact = Redactor(patterns={"customer": r"C-\d{6}", "word": re.compile("HUSH", re.IGNORECASE)})
    said = redact("C-123456, hush, ghp_abcdefghijklmnopqrstuvwxyz, C-123456")
    assert re.findall("⟦([a-z_]+):", said) == ["customer", "word", "github_token", "customer"]
    first, *_, last = re.findall("⟦.*?⟧", said)
    assert first == last


def test_what_is_redacted_stays_as_it_is() -> None:
    """A replay redacts what its recording had redacted already."""
    redact = Redactor(patterns={"digits": r"\d+", "name": "[a-f]+"}, key="k")
    for text in ("7 and 8", "https://user:secret@example.org", "abc"):
        assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"patterns": {"x": "("}}, "no regular expression"),
        ({"patterns": {"x": 3}}, "no regular expression"),
        ({"patterns": {"x": "a*"}}, "must not match where there is none"),
        ({"patterns": {"X!": "a"}}, "small letters"),
        ({"fields": "ssn"}, "a list of paths"),
        ({"fields": ["a..b"]}, "expected a path"),
        ({"fields": ["a.**"]}, "expected a path"),
        ({"key": b""}, "expected bytes"),
    ],
)
def test_mistakes_are_said_at_once(given: dict[str, Any], says: str) -> None:
    """What cannot be meant is refused when the redactor is made."""
    with pytest.raises(ConfigurationError, match=says):
        Redactor(**given)


ALNUM = string.ascii_letters + string.digits
KEY_PREFIXES = st.sampled_from(
    ["sk-", "pk_", "rk-", "gsk_", "xai-", "fw_", "csk-", "r8_", "nvapi-"]
)
BUILT_IN = {
    "api_key": st.tuples(
        KEY_PREFIXES,
        # What is shorter than 24 and has no digit is a name: `sk-transformersmodel`.
        st.text(ALNUM, min_size=16, max_size=30).filter(
            lambda body: len(body) >= 24 or any(map(str.isdigit, body))
        ),
    ),
    "google": st.tuples(st.just("AIza"), st.text(ALNUM, min_size=35, max_size=35)),
    "hugging_face": st.tuples(st.just("hf_"), st.text(ALNUM, min_size=20, max_size=30)),
    "aws_key": st.tuples(
        st.sampled_from(["AKIA", "ASIA"]),
        st.text(string.ascii_uppercase + string.digits, min_size=16, max_size=16),
    ),
    "github_token": st.tuples(
        st.sampled_from(["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"]),
        st.text(ALNUM, min_size=20, max_size=30),
    ),
    "slack_token": st.tuples(
        st.sampled_from(["xoxb-", "xoxp-", "xoxa-", "xoxe-", "xoxo-", "xoxr-", "xoxs-"]),
        st.text(ALNUM, min_size=10, max_size=30),
    ),
    "jwt": st.tuples(
        st.just("eyJ"),
        st.text(ALNUM, min_size=8, max_size=20),
        st.just("."),
        st.text(ALNUM, min_size=8, max_size=20),
        st.just("."),
        st.text(ALNUM, min_size=1, max_size=20),
    ),
    "customer": st.tuples(st.just("C-"), st.text(string.digits, min_size=6, max_size=6)),
}
SECRETS = st.one_of([one.map("".join) for one in BUILT_IN.values()])
NAMES = st.tuples(KEY_PREFIXES, st.text(string.ascii_letters, min_size=16, max_size=23)).map(
    "".join
)
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
REDACT = Redactor(
    patterns={"customer": r"C-\d{6}"}, fields=["**.pin", "**.password"], key=b"a key of this test"
)


@given(
    st.lists(
        SECRETS | NAMES | WORDS | st.sampled_from(["Bearer abcdefghijkl12", "://u:pass@h", "-"])
    )
)
def test_looking_for_marks_first_misses_nothing(parts: list[str]) -> None:
    """A text is what the patterns make of it, though most texts never meet them."""
    text, redact = " ".join(parts), Redactor(key=b"k")
    alternatives = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PATTERNS.items())

    def placeholder(match: re.Match[str]) -> str:
        return redact.secret(match.group(), str(match.lastgroup))

    if "⟦" not in text:
        assert redact(text) == re.sub(alternatives, placeholder, text)
        assert redact.passes(text) <= (redact(text) == text)


@given(st.lists(SECRETS | NAMES | WORDS), st.data())
def test_the_quick_way_names_messages_as_the_careful_one(parts: list[str], data: Any) -> None:
    """A message of plain text has the blob and the identity that the general way gives it."""
    from agentkit.messages import AssistantMessage, ToolCall, ToolMessage
    from agentkit.trace.naming import Namer, digest, without_ids

    text = " ".join(parts)
    call = ToolCall(id=data.draw(WORDS), name="look", arguments=text)
    redact = Redactor(key=b"k")
    for message in (
        AssistantMessage(content=text, tool_calls=(call,)),
        ToolMessage(call_id=call.id, content=text, name="look"),
    ):
        value = packed(message.to_json(), redact, own=True)
        namer = Namer(redact)
        assert namer.message(message) == (digest(canonical(value)), value)
        known = namer.known(message)
        assert known[2] == digest(canonical(without_ids(value)))


@given(
    secret=SECRETS,
    pin=st.text(ALNUM, min_size=8, max_size=12).map("p1n{}".format),
    hidden=st.text(ALNUM, min_size=12, max_size=20).map("h1d{}".format),
)
def test_secrets_never_reach_a_byte(
    secret: str, pin: str, hidden: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Not from prompts, arguments, results, exceptions, headers, progress, logs or URLs."""
    folder = tmp_path_factory.mktemp("trace")
    field = json.dumps({"login": {"pin": pin, "password": pin}})
    url = f"https://user:{hidden}@example.org/"

    @tool(max_output=None)
    def use(text: str, pin: str, context: RunContext) -> dict[str, Any]:
        context.progress({"login": {"pin": pin}, "at": secret})
        to_trace(None, "info", {"event": f"with {secret}", "login": {"pin": pin}, "url": url})
        return {"said": [secret, url], "pin": pin, "big": [f"{secret} {n}" for n in range(4000)]}

    @tool
    def fail(text: str) -> None:
        raise ValueError(f"{text} {url} {field}")

    def answer(request: Any) -> Any:
        if request.json["messages"][-1]["role"] == "tool":
            return reply(f"{secret} {field}")
        arguments = {"text": f"{secret} {url}", "pin": pin}
        return reply(f"I see {url}", calls=[("use", arguments), ("fail", {"text": secret})])

    async def main() -> None:
        model = ChatModel("any", base_url=server.base_url, api_key=hidden)
        agent = Agent(model, tools=[use, fail], instructions=f"{secret} {url}", redact=REDACT)
        given = ChatSettings(
            extra_headers={"x-account": hidden},
            extra_body={"api_key": hidden, "nested": {"token": hidden, "pin": pin}},
        )
        options: Any = {"settings": given, "trace": folder / "run.jsonl"}
        async with agent.stream(f"{secret} and {field}", **options) as run:
            async for _ in run:
                pass
        assert secret in run.result.output
        await model.aclose()

    with ChatServer(answer) as server:
        anyio.run(main)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) == 1  # the trace, with the large result in it
    for content in (path.read_text(encoding="utf-8") for path in written):
        assert secret not in content
        assert pin not in content
        assert hidden not in content
        assert REDACT.secret(secret, kind_of(secret)) in content
    streamed = [
        item if isinstance(item, str) else item.get("arguments", "")
        for event in Trace.load(folder / "run.jsonl").events
        if event["event"] == "model.chunks"
        for _, item in event["d"]
    ]
    assert secret not in "".join(streamed)


def kind_of(secret: str) -> str:
    """The kind in a secret's placeholder."""
    found = re.match("⟦([a-z_]+):", REDACT(secret))
    assert found is not None
    return found[1]


async def test_settings_with_credentials_replay_and_are_not_sent_again(tmp_path: Path) -> None:
    """A placeholder stands for itself in a replay; a resumption asks for the real ones."""
    path, headers = tmp_path / "run.jsonl", ChatSettings(extra_headers={"x-account": "hunter2"})
    agent = Agent(ScriptedModel(["done"]))
    await agent.run("go", trace=path, settings=headers)
    assert "hunter2" not in path.read_text()
    assert (await agent.replay(path)).output == "done"
    with pytest.raises(ConfigurationError, match="credentials"):
        await agent.resume(path)


async def test_one_redactor_for_what_models_are_told_too() -> None:
    """The text of an exception has the agent's own secrets taken out."""

    @tool
    def fail() -> None:
        raise ValueError("account C-123456")

    model = ScriptedModel([[("fail", {})], "done"])
    result = await Agent(model, tools=[fail], redact=REDACT).run("go")
    assert result.messages[-2].text == f"ValueError: account {REDACT('C-123456')}"


async def test_a_message_redacted_otherwise_is_another_blob() -> None:
    """What was kept of a message under one redactor is not used under another."""
    history = [{"role": "user", "content": "C-123456"}]
    plain = await Agent(ScriptedModel(["one"])).run("go", history=history)
    agent = Agent(ScriptedModel(["two"]))
    hidden = await agent.run("go", history=plain.messages, redact=REDACT)
    assert plain.trace is not None
    assert hidden.trace is not None
    assert "C-123456" in str(dict(plain.trace.blobs))
    assert "C-123456" not in str(dict(hidden.trace.blobs))


def test_binary_data_is_left_alone() -> None:
    """Long base64 is not searched: what looks like a key in it is none."""
    data = "data:image/png;base64," + "A" * 5000 + "+AKIA" + "B" * 16 + "/" + "A" * 100
    assert Redactor()(data) == data


AWS_KEY = "AKIAABCDEFGHIJKLMNOP"
WRAPPED = ["A" * 57 + "eyJAAAA", "AKIAABCDEFGHIJKLMNOP+" + "A" * 43] * 40


@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "QUJD" * 4, "QUI="])
def test_wrapped_binary_data_is_left_alone(width: int, end: str, last: str) -> None:
    """As encoders wrap base64: lines of one length, and a last one that may be shorter."""
    lines = [line.ljust(width, "B") for line in WRAPPED]
    data = end.join([*lines, last])
    assert Redactor()(data) == data


@pytest.mark.parametrize(
    "lines",
    [
        ["word"] * 1000 + [AWS_KEY],
        [AWS_KEY] + ["word"] * 1000,
        ["0123456789abcdef" * 4] * 100 + [AWS_KEY],
        ["0123456789abcdef" * 4] * 100 + [AWS_KEY, ""],
        ["0123456789abcdef" * 4] * 100 + ["AIza" + "b" * 35],
        ["0123456789abcdef" * 4] * 50 + [AWS_KEY] + ["0123456789abcdef" * 4] * 50,
        ["A" * 5000, AWS_KEY],
        [AWS_KEY] * 400,
    ],
)
def test_long_lists_are_not_taken_for_binary_data(lines: list[str]) -> None:
    """A key on a line of its own is found, also among letters and digits alone."""
    for end in ("\n", "\r\n"):
        said = Redactor()(end.join(lines))
        assert AWS_KEY not in said
        assert "AIza" not in said


def test_values_that_cannot_be_read_are_said() -> None:
    """A recorder never fails at what a tool reports."""

    class Broken:
        def __repr__(self) -> str:
            raise AgentKitError("no")

    loop: list[Any] = []
    loop.append(loop)
    assert packed([Broken()], Redactor())["$nonjson"] == "list"
    assert packed(loop, Redactor())["$nonjson"] == "list"


# What looks like a key

LOOK_ALIKES = """
pk_customer_orders_2024 r8-release-candidate-build sk-learn-pipeline-final-v2 fw-update-2024-11-25
rk_user_account_foreign_key pk_order_items_20241125 sk_SK.utf8 sk-image-processing-examples
xai-explainability-report-q3 csk-test-suite-runner-config gsk-vaccine-trial-results-phase3
nvapi-reference-documentation pk_invoice_line_item_id sk-estimator-random-forest-100
fw_version_check_on_startup_v12 rk-45-road-bike-wheelset r8_audi_spyder_v10_performance
hf_transformers_model_hub npm_config_registry_url key-value-store-benchmarks
pypi-package-release-notes figd_export glpat-rotation-guide tvly-search-notes lin_api_docs
sk-2024-11-25-10-30-00-backup pk_1f_2e_3d_4c_5b_6a sk-user-admin-role-permission-matrix
http://localhost:8080/users/ada@example.org https://example.org/@ada/posts
ssh://git@example.org:22/ada/repo.git eyJust.a.sentence.really https://a.org:443?q=a@b.org
SG.airports.and.harbours hvs.heating-ventilation dapi-reference xapp-1-readme ya29.md
""".split()

KEYS = """
sk-proj-Ab3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zA sk-ant-api03-Qw3rTy7uIo1pAs5dFg9hJk2lZx6cVb0n-Aa
sk-or-v1-0123456789abcdef0123456789abcdef sk_live_51HyZkLAbCdEfGhIjKlMnOpQr
pk_test_4eC39HqLyjWDarjtT1zdp7dc
gsk_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6 xai-a1B2c3D4e5F6g7H8i9J0k1L2m3N4
r8_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s
nvapi-a1B2c3D4e5F6g7H8i9J0k1L2m3N4-o5P6q7 sk-123e4567-e89b-12d3-a456-426614174000
glpat-a1B2c3D4e5F6g7H8i9J0 npm_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8
SG.a1B2c3D4e5F6g7H8i9J0kk.a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8i9J0abc
dop_v1_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
dckr_pat_a1B2c3D4e5F6g7H8i9J0k1L2m3N shpat_0123456789abcdef0123456789abcdef
hvs.a1B2c3D4e5F6g7H8i9J0k1L2m3N4 ya29.a0AfH6SMBx1y2z3a4b5c6d7e8f whsec_a1B2c3D4e5F6g7H8i9J0k1L2
pcsk_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2 tvly-dev-a1B2c3D4e5F6g7H8i9J0k1L2
dapi0123456789abcdef0123456789abcdef 123456789:AAa1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q
lsv2_pt_0123456789abcdef0123456789abcdef_0123456789 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
glsa_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6_0a1b2c3d sbp_0123456789abcdef0123456789abcdef01234567
figd_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0 pplx-a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0
sntrys_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0uv xapp-1-A0123456789-0123456789-a1b2c3d4e5f6
NRAK-A1B2C3D4E5F6G7H8I9J0K1L2M3N
""".split()


def test_the_precision_of_shapes() -> None:
    """All of these keys are taken for keys, and none of these names."""
    redact = Redactor(key="k")
    assert [one for one in LOOK_ALIKES if redact(f"see {one} ok") != f"see {one} ok"] == []
    assert [one for one in KEYS if one[8:] in redact(f"see {one} ok")] == []


@pytest.mark.parametrize(
    "text",
    [
        "https://ada:pa/ss/w0rd@example.org/x",
        "postgres://ada:p@ss/w0rd@db.example.org:5432/main",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\npa/ss\n=w0rd\n"
        "-----END PGP PRIVATE KEY BLOCK-----",
        "-----BEGIN ED25519 PRIVATE KEY-----\npa/ss w0rd",
    ],
)
def test_passwords_with_slashes_and_pgp_keys(text: str) -> None:
    """Neither a slash nor an @ ends a password, and a PGP key is a private key."""
    redacted = Redactor(key="k")(text)
    assert "⟦" in redacted
    assert not re.search("pa/ss|p@ss|w0rd", redacted)


async def test_a_name_that_looks_like_a_key_reaches_the_model_and_survives_a_pause() -> None:
    """A guess by its shape is for traces; this name is not even one."""
    name, key = "pk_customer_orders_2024", "sk-abcdefghijklmnopqrstuvwxyz123456"

    @tool(approval=True)
    def drop(index: str) -> str:
        """Drop an index."""
        raise LookupError(f"no {index}, {key}")

    agent = Agent(ScriptedModel([[("drop", {"index": name})], "Done."]), tools=[drop])
    paused = await agent.run("go")
    assert paused.trace is not None
    result = await agent.resume(paused.trace, decisions={"/agent/m0/t0": True})
    assert result.messages[-2].text == f"LookupError: no {name}, {key}"
    assert result.trace is not None
    assert key not in str(dict(result.trace.blobs))
    assert name in str(dict(result.trace.blobs))


async def test_a_key_that_agentkit_sends_never_reaches_a_model() -> None:
    """It is known to be a secret, whatever it looks like."""

    @tool
    def leak() -> None:
        """Fail with the key in the text."""
        raise RuntimeError("refused: my own kind of key")

    answers = [reply("", calls=[("leak", {})]), reply("Done.")]
    with ChatServer(answers) as server:
        url = server.base_url
        async with ChatModel("any", base_url=url, api_key="my own kind of key") as model:
            result = await Agent(model, tools=[leak]).run("go")
    assert "kind of key" not in result.messages[-2].text
    assert result.messages[-2].text.startswith("RuntimeError: refused: ⟦api_key:")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "\\" * n,
        lambda n: '"pin": ' + "\\" * n,
        lambda n: '"pin": ' + "\\" * (n // 2) + '"' + "\\" * (n // 2),
        lambda n: '\\"pin\\": \\"' + '\\\\\\"' * (n // 4),
        lambda n: "sk-" * (n // 3),
        lambda n: "sk-a-" * (n // 5),
        lambda n: "://a:" * (n // 5),
        lambda n: "-----BEGIN PRIVATE KEY-----" * (n // 27),
    ],
)
@pytest.mark.storm_only
def test_hostile_text_costs_in_proportion_to_its_length(make: Callable[[int], str]) -> None:
    """Four times the text takes about four times as long, not sixteen times."""
    redact = Redactor(fields=["pin"], key="k")

    def seconds(text: str) -> float:
        times: list[float] = []
        for _ in range(3):
            begun = time.process_time()
            redact(text)
            times.append(time.process_time() - begun)
        return min(times)

    small, large = make(20_000), make(80_000)
    assert seconds(large) < 9 * seconds(small) + 0.01
