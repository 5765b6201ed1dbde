"""The contract of a host: one suite that whatever runs the loop has to pass.

A host drives an agent's loop and performs its effects: this process does, a run that is
resumed from its trace, a durable engine. Each case is an agent with a script; `check` runs it
in process and with the host, and compares.

    @pytest.mark.parametrize("case", CASES, ids=str)
    async def test_my_host_runs_agents_as_agentkit_does(case):
        await check(case, my_host)

How to write a host is on the page "Run agents in another engine".
"""

from __future__ import annotations

from agentkit.testing.host_conformance.cases import CASES
from agentkit.testing.host_conformance.contract import Case, Host, Script, check, in_process

__all__ = ["CASES", "Case", "Host", "Script", "check", "in_process"]
