"""Who asks and what they may: service accounts' tokens, TokenReview as the real server answers it, RBAC."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from tests.rehearsal.control.store import Object, Refusal, Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
LEEWAY = 60.0  # seconds after its end that a token is still good: the real server's own
CACHED = 10.0  # seconds that a good review is remembered
_DELEGATOR = [
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
]
_BUILT_IN: dict[str, list[Object]] = {"system:auth-delegator": _DELEGATOR}


class Tokens:
    """Signs and verifies; the accounts and pods that a token is bound to are the store's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.admin = uuid.uuid4().hex  # kubectl's
        self._seen: dict[tuple[str, tuple[str, ...]], tuple[float, tuple[str, list[str]]]] = {}

    def issue(
        self, namespace: str, account: str, seconds: float, audiences: list[str], pod: Object | None = None
    ) -> str:
        """A token bound to the account as it is now, and to the pod. Raises Refusal 404."""
        known = self._store.get("serviceaccounts", namespace, account)
        bound: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": {"name": account, "uid": known["metadata"]["uid"]},
        }
        if pod is not None:
            bound["pod"] = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        now = time.time()
        body = {
            "iss": ISSUER, "aud": audiences or [ISSUER], "iat": int(now), "nbf": int(now),
            "exp": int(now + seconds), "sub": f"system:serviceaccount:{namespace}:{account}",
            "kubernetes.io": bound,
        }  # fmt: skip
        signed = f"{_b64(json.dumps({'alg': 'ES256', 'typ': 'JWT'}))}.{_b64(json.dumps(body))}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def whose(self, token: str, audiences: list[str]) -> tuple[str, list[str]] | None:
        """The user's name, and for which of the audiences (none: the server's own) it is; None: no good."""
        wanted = tuple(audiences or [ISSUER])
        seen = self._seen.get((token, wanted))
        if seen is not None and time.monotonic() - seen[0] < CACHED:
            return seen[1]
        claims = self._claims(token)
        if claims is None or not self._is_bound(claims["kubernetes.io"]):
            return None
        fitting = [one for one in wanted if one in claims["aud"]]
        if not fitting:
            return None
        found = (str(claims["sub"]), fitting)
        self._seen[token, wanted] = (time.monotonic(), found)
        return found

    def _claims(self, token: str) -> dict[str, Any] | None:
        try:
            header, body, signature = token.split(".")
            raw = _unb64(signature)
            r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
            self._key.public_key().verify(
                encode_dss_signature(r, s), f"{header}.{body}".encode(), ec.ECDSA(hashes.SHA256())
            )
            claims: dict[str, Any] = json.loads(_unb64(body))
        except (ValueError, InvalidSignature):
            return None
        now = time.time()
        good = claims["iss"] == ISSUER and claims["exp"] + LEEWAY > now and claims["nbf"] - LEEWAY < now
        return claims if good else None

    def _is_bound(self, bound: dict[str, Any]) -> bool:
        """Whether the account and the pod are there still, the same ones."""
        for plural, field in (("serviceaccounts", "serviceaccount"), ("pods", "pod")):
            if field in bound:
                found = self._store.find(plural, bound["namespace"], bound[field]["name"])
                if found is None or found["metadata"]["uid"] != bound[field]["uid"]:
                    return False
        return True

    def caller(self, header: str) -> str:
        """Whose bearer token that is: `admin` or an account. Raises Refusal 401."""
        token = header.removeprefix("Bearer ")
        if token == self.admin:
            return "admin"
        found = self.whose(token, [])
        if found is None:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        return found[0]

    def review(self, asked: Object) -> Object:
        """The answer to a TokenReview."""
        spec = asked["spec"]
        found = self.whose(spec.get("token", ""), spec.get("audiences") or [])
        if found is None:
            return {**asked, "status": {"user": {}, "error": "token is not good"}}
        _, _, namespace, _ = found[0].split(":")
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        user = {"username": found[0], "groups": groups}
        return {**asked, "status": {"authenticated": True, "user": user, "audiences": found[1]}}

    def require(self, caller: str, verb: str, group: str, resource: str, namespace: str, name: str) -> None:
        """RBAC. Raises Refusal 403."""
        if caller == "admin":
            return
        for rules in self._rules_of(caller, namespace):
            for rule in rules:
                names = rule.get("resourceNames")
                if (
                    _has(rule.get("apiGroups"), group)
                    and _has(rule.get("resources"), resource)
                    and _has(rule.get("verbs"), verb)
                    and (not names or name in names)
                ):
                    return
        what = f'{resource} "{name}"' if name else resource
        raise Refusal(403, "Forbidden", f'{what} is forbidden: User "{caller}" cannot {verb} it there')

    def _rules_of(self, caller: str, namespace: str) -> list[list[Object]]:
        found = []
        bindings = self._store.list("clusterrolebindings")
        if namespace:
            bindings += self._store.list("rolebindings", namespace)
        for binding in bindings:
            place = binding["metadata"].get("namespace", "")
            if any(_is(subject, caller, place) for subject in binding.get("subjects", ())):
                ref = binding["roleRef"]
                plural = "clusterroles" if ref["kind"] == "ClusterRole" else "roles"
                role = self._store.find(plural, place if plural == "roles" else "", ref["name"])
                found.append((role or {}).get("rules") or _BUILT_IN.get(ref["name"], []))
        return found


def _is(subject: Object, caller: str, namespace: str) -> bool:
    if subject["kind"] != "ServiceAccount":
        return bool(subject["name"] == caller)
    place = subject.get("namespace", namespace)
    return caller == f"system:serviceaccount:{place}:{subject['name']}"


def _has(allowed: list[str] | None, wanted: str) -> bool:
    return wanted in (allowed or ()) or "*" in (allowed or ())


def _b64(raw: str | bytes) -> str:
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
