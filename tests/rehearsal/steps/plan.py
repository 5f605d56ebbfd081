"""Which steps are done, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.rehearsal.scene import Scene
from tests.rehearsal.steps import away, certificates, first, logins, lost, mistakes, upgrade


@dataclass(frozen=True)
class Step:
    """`title` says what holds when it has passed."""

    title: str
    run: Callable[[Scene], str | None]


TO_A_FIRST_SECRET = (
    Step("the overlay is applied", first.applied),
    Step("everything is rolled out", first.rolled_out),
    Step("init gives shares", first.initialised),
    Step("two of three shares unseal", first.unsealed),
    Step("a first secret is written and read", first.first_secret),
)
_UNDONE = Step("a wrong setting stops at one pod and is undone", mistakes.a_wrong_setting_undone)
_AWAY = Step("it is taken away with and without its data", away.taken_away)
_KILLED = Step("no container had to be killed", first.nothing_was_killed)
_RENEWED = Step("certificates are renewed and taken up without a restart", certificates.renewed)
_LOGIN = Step("a pod logs in with its account's token", logins.logged_in)
_LOAD = Step("clients write and read", upgrade.load_begins)
_UPGRADED = Step("an upgrade in the documented order fails no request", upgrade.upgraded)
_LOST = Step("a pod of each kind, lost, fails no request", lost.each_kind_lost)
_DRAINED = Step("a node is drained, a second is not, and no request fails", lost.drained)
_VOLUME = Step("an audit volume, lost, is filled again", lost.a_volume_lost)

SHORT = (*TO_A_FIRST_SECRET, _KILLED)
PLANS: dict[str, tuple[Step, ...]] = {
    "dev": (
        Step("a wrong image name is corrected", mistakes.a_wrong_image_put_right),
        *TO_A_FIRST_SECRET,
        _LOGIN,
        _RENEWED,
        Step("each pod, lost, comes back with everything", lost.each_kind_lost_of_one),
        _KILLED,
        _AWAY,
    ),
    "prod": (
        Step("a wrong image name is corrected", mistakes.a_wrong_image_put_right),
        *TO_A_FIRST_SECRET,
        _LOAD,
        _UPGRADED,
        _LOST,
        _DRAINED,
        _RENEWED,
        _VOLUME,
        _UNDONE,
        _LOGIN,
        _KILLED,
        _AWAY,
        Step("every command of docs/deploying.md was run", first.everything_documented_was_run),
    ),
    "prod-cert-manager": (*TO_A_FIRST_SECRET, _LOAD, _RENEWED, _UPGRADED, _KILLED),
}
