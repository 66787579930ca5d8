"""A store in memory, for tests of what uses one. The contract suite holds it to the same rules as the real stores."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Prediction, Progress
from dragoman.store import ACTIVE, Change, Edit
from tests.fakes_registry import FakeRegistry


class FakeStore(FakeRegistry):
    """Implements `dragoman.store.Store`. Set `failure` to make every call raise it, as a database that is gone would.

    Set `unheard` to make so many of the next writes of predictions, which are made, seem to fail: the line broke before the answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unheard = 0
        self._predictions: dict[str, Prediction] = {}
        self._documents: dict[tuple[str, str], tuple[str, str]] = {}

    # --- documents ---

    async def document(self, kind: str, key: str) -> Mapping[str, Any] | None:
        self._check()
        _, body = self._documents.get((kind, key), ("", "null"))
        found: Mapping[str, Any] | None = json.loads(body)
        return found

    async def documents(self, kind: str, groups: Sequence[str] | None = None) -> list[Mapping[str, Any]]:
        self._check()
        wanted = [each for (found, _), each in self._documents.items() if found == kind]
        return [json.loads(body) for group, body in wanted if groups is None or group in groups]

    async def edit_document(self, kind: str, key: str, edit: Edit, *, group: str = "", rings: bool = False) -> Mapping[str, Any]:
        self._check()
        edited = dict(edit(await self.document(kind, key)))
        known, _ = self._documents.get((kind, key), (group, ""))
        self._documents[kind, key] = (known, json.dumps(edited))
        if rings:
            self._ring()
        return edited

    async def remove_document(self, kind: str, key: str, *, rings: bool = False) -> bool:
        self._check()
        gone = self._documents.pop((kind, key), None) is not None
        if gone and rings:
            self._ring()
        return gone

    # --- predictions ---

    def _answer(self) -> None:
        if self.unheard:
            self.unheard -= 1
            raise ServingError(Kind.UNAVAILABLE, "the line broke before the answer", retry_after_s=5.0)

    async def add_prediction(self, prediction: Prediction) -> None:
        self._check()
        if prediction.id in self._predictions:
            raise ServingError(Kind.CONFLICT, f"prediction '{prediction.id}' exists", what="prediction")
        self._predictions[prediction.id] = prediction
        self._answer()

    async def prediction(self, prediction_id: str, *, inputs: bool = True) -> Prediction | None:
        self._check()
        found = self._predictions.get(prediction_id)
        return found if inputs or found is None else replace(found, inputs=b"")

    async def change_prediction(self, change: Change) -> bool:
        self._check()
        found = self._predictions.get(change.id)
        if found is None or found.progress not in change.allowed:
            return False
        if change.owner not in (None, found.owner) or change.attempt not in (None, found.attempt):
            return False
        fields = ("progress", "outputs", "error", "error_kind", "logs", "started", "finished", "delivered")
        changed = replace(found, **{name: getattr(change, name) for name in fields if getattr(change, name) is not None})
        if change.progress is Progress.PENDING:
            changed = replace(changed, owner="", lease_until=0.0, started=None)
        self._predictions[change.id] = changed
        self._answer()
        return True

    async def claim_predictions(self, owner: str, models: Sequence[str], *, lease_until: float, limit: int) -> list[Prediction]:
        self._check()
        waiting = self._oldest(p for p in self._predictions.values() if p.progress is Progress.PENDING and p.model in models)
        claimed = [
            replace(p, progress=Progress.CLAIMED, owner=owner, attempt=p.attempt + 1, lease_until=lease_until) for p in waiting[:limit]
        ]
        self._predictions |= {p.id: p for p in claimed}
        if claimed:
            self._answer()
        return claimed

    async def pending_models(self) -> list[str]:
        self._check()
        return sorted({p.model for p in self._predictions.values() if p.progress is Progress.PENDING})

    async def unfinished(self) -> dict[str, tuple[int, int]]:
        self._check()
        left = [p for p in self._predictions.values() if not p.progress.terminal]
        running = Counter(p.model for p in left if p.progress is Progress.RUNNING)
        everything = Counter(p.model for p in left)
        return {model: (count - running[model], running[model]) for model, count in everything.items()}

    async def orphans(self, *, now: float, dead: Sequence[str] = ()) -> list[Prediction]:
        self._check()
        lost = (p for p in self._predictions.values() if p.progress in ACTIVE and (p.lease_until < now or p.owner in dead))
        return [replace(p, inputs=b"", outputs=None, logs="") for p in self._oldest(lost)]

    async def owners(self) -> list[str]:
        self._check()
        return sorted({p.owner for p in self._predictions.values() if p.progress in ACTIVE})

    async def renew_leases(self, owner: str, ids: Sequence[str], lease_until: float) -> None:
        self._check()
        mine = [p for p in self._predictions.values() if p.id in ids and p.owner == owner and p.progress in ACTIVE]
        self._predictions |= {p.id: replace(p, lease_until=lease_until) for p in mine}

    async def cancelled_of(self, owner: str, ids: Sequence[str]) -> list[str]:
        self._check()
        kept = {p.id for p in self._predictions.values() if p.owner == owner and p.progress is not Progress.CANCELLED}
        return [prediction_id for prediction_id in ids if prediction_id not in kept]

    async def undelivered(self, limit: int) -> list[Prediction]:
        self._check()
        return [p for p in self._ended() if p.webhook and not p.delivered][:limit]

    async def remove_predictions(self, *, finished_before: float, limit: int) -> list[str]:
        self._check()
        over = [p.id for p in self._ended() if (p.finished or 0.0) < finished_before][:limit]
        for prediction_id in over:
            del self._predictions[prediction_id]
        return over

    async def close(self) -> None:
        self.closed = True

    # --- inside ---

    def _oldest(self, predictions: Iterable[Prediction]) -> list[Prediction]:
        return sorted(predictions, key=lambda p: (p.created, p.id))

    def _ended(self) -> list[Prediction]:
        ended = (p for p in self._predictions.values() if p.progress.terminal)
        return sorted(ended, key=lambda p: (p.finished or 0.0, p.id))
