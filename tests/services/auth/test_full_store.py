"""What auth's decisions do to etcd's space: logins and revocations go on while nothing may grow."""

from __future__ import annotations

from typing import Any

import pytest

from strongbox.access.token_format import digest
from strongbox.errors import Unauthenticated
from strongbox.store.space.admission import Effect, effect_of
from tests.services.auth.support import AuthService


class Weighed(AuthService):
    """Knows the effect of each decision that was carried out, as the Decider would."""

    def __init__(self) -> None:
        super().__init__()
        self.effects: list[Effect] = []
        carry_out = self.pipeline._carry_out

        def weigh(view: Any, value: Any, draft: Any) -> Any:
            told = view.footprint
            said = view.effect if told.puts or told.deletes else None
            self.effects.append(said or effect_of(told.puts, told.deletes, told.reads, self.store.value))
            return carry_out(view, value, draft)

        self.pipeline._carry_out = weigh  # type: ignore[method-assign]


@pytest.fixture
def auth() -> Weighed:
    return Weighed()


async def test_a_login_is_neutral_whether_the_password_is_right_or_wrong(auth: Weighed) -> None:
    await auth.user()
    auth.effects.clear()
    with pytest.raises(Unauthenticated):
        await auth.login("alice", "wrong horse battery staple")
    await auth.login()
    assert set(auth.effects) == {Effect.NEUTRAL}


async def test_a_token_made_by_a_token_grows_the_store(auth: Weighed) -> None:
    await auth.call("CreateToken", policies=["app"])
    assert auth.effects == [Effect.GROWS]


async def test_a_policy_that_stands_is_tightened_while_nothing_may_grow(auth: Weighed) -> None:
    longer = [{"path": f"secret/app/{n}", "capabilities": ["deny"]} for n in range(20)]
    for name, effect in (("app", Effect.NEUTRAL), ("new", Effect.GROWS)):
        await auth.call("WritePolicy", name=name, rules=longer)
        assert auth.effects[-1] is effect


async def test_revoking_is_for_safety_also_the_second_time_and_so_is_the_use_it_takes(auth: Weighed) -> None:
    made = await auth.call("CreateToken", policies=["app"], num_uses=3)
    auth.effects.clear()
    await auth.peers.take(digest(made.token), "r", 10.0**9)
    await auth.call("RevokeToken", accessor=made.accessor)
    await auth.call("RevokeToken", accessor=made.accessor)
    assert auth.effects == [Effect.SAFETY] * 3
