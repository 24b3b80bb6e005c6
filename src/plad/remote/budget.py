"""What a run may cost: every request is set aside at what it may be billed at most before it is sent."""

import logging
import math
from dataclasses import dataclass, field

from plad.answers.ledger import Ledger
from plad.answers.paid import spent
from plad.answers.reply import TEMPLATE_TOKENS, Reply
from plad.config.engines import BudgetSection, Endpoint
from plad.errors import BudgetError
from plad.remote.request import HttpRequest

log = logging.getLogger("plad")

TRUSTED_AFTER = 20  # replies in a row within what was asked for
_ROUNDING = 1 + 1e-9

_Price = tuple[float, int]  # US dollars and tokens


@dataclass(slots=True)
class _Aside:
    """A request in flight: what was set aside, and what it costs a provider that keeps to what was asked for."""

    most: _Price
    asked: _Price


@dataclass(slots=True)
class Budget:
    """Money and tokens of a run: spent, and set aside for requests in flight.

    A prompt has at most as many tokens as UTF-8 bytes. How long an answer may be is the provider's word: until
    `TRUSTED_AFTER` replies in a row kept to `max_tokens`, the longest answer it can bill is set aside. Where that is
    more than the budget has left, requests go one by one, so that one bill at most passes it.

    Attributes:
        usd, tokens: most that may be spent in all; None for no limit.
        spent_usd, spent_tokens: by requests that are answered, those of earlier sessions included.
    """

    usd: float | None = None
    tokens: int | None = None
    spent_usd: float = 0.0
    spent_tokens: int = 0
    _aside: dict[str, _Aside] = field(default_factory=dict[str, _Aside])
    _usd_aside: float = 0.0
    _tokens_aside: int = 0
    _kept: int = 0  # replies in a row within what was asked for
    _highest: _Price = (0.0, 0)  # bill so far
    _doubted: bool = False  # a bill was above what was asked for

    @classmethod
    def of(cls, section: BudgetSection | None, ledger: Ledger) -> "Budget":
        """The budget of a config, of which the ledger's run has spent something; nothing is ever short without one."""
        section = section or BudgetSection()
        taken = (0.0, 0) if ledger.run is None else spent(ledger, ledger.run)
        return cls(section.usd, section.tokens, *taken)

    @property
    def waiting(self) -> bool:
        """Whether something is set aside that may turn out cheaper."""
        return bool(self._aside)

    @property
    def trusts(self) -> bool:
        """Whether the provider has shown that it keeps to `max_tokens`."""
        return self._kept >= TRUSTED_AFTER

    def set_aside(self, endpoint: Endpoint, request: HttpRequest) -> bool:
        """Set aside what a request may be billed at most; False if that would pass the budget."""
        if self.usd is None and self.tokens is None:
            return True
        asked = _price(endpoint, request, request.max_new_tokens)
        longest = max(request.max_new_tokens, endpoint.longest_answer)
        most = asked if self.trusts else _price(endpoint, request, longest)
        if not self._has_room(most):
            if self.trusts or self._aside or not self._has_room(self._expected(asked)):
                return False
            usd, tokens = self._left()
            most = min(most[0], usd), int(min(most[1], tokens))
        self._aside[request.key] = _Aside(most, asked)
        self._usd_aside += most[0]
        self._tokens_aside += most[1]
        return True

    def _left(self) -> tuple[float, float]:
        """US dollars and tokens that are neither spent nor set aside."""
        usd = math.inf if self.usd is None else self.usd - self.spent_usd - self._usd_aside
        return usd, math.inf if self.tokens is None else self.tokens - self.spent_tokens - self._tokens_aside

    def _has_room(self, price: _Price) -> bool:
        usd, tokens = self._left()
        return price[0] <= usd and price[1] <= tokens

    def _expected(self, asked: _Price) -> _Price:
        """What one more request costs at a provider that bills as it did so far."""
        return asked if self.trusts else (max(asked[0], self._highest[0]), max(asked[1], self._highest[1]))

    def release(self, key: str) -> None:
        """Give back what was set aside for a request that is over."""
        if (aside := self._aside.pop(key, None)) is not None:
            self._usd_aside = self._usd_aside - aside.most[0] if self._aside else 0.0  # rounding doesn't add up
            self._tokens_aside -= aside.most[1]

    def count(self, key: str, reply: Reply) -> BudgetError | None:
        """Count what a request cost, before it is released; the reason to stop where more than was set aside."""
        bill = reply.cost or 0.0, reply.prompt_tokens + reply.completion_tokens
        self.spent_usd += bill[0]
        self.spent_tokens += bill[1]
        aside = self._aside.get(key)
        if aside is None or not bill[1]:
            return None
        self._highest = max(bill[0], self._highest[0]), max(bill[1], self._highest[1])
        if _within(bill, aside.asked):
            self._kept += 1
        else:
            if not self._doubted:
                log.warning("%d tokens were billed where %d were asked for at most", bill[1], aside.asked[1])
            self._kept, self._doubted = 0, True
        if _within(bill, aside.most):
            return None
        return BudgetError(
            f"stopped: {bill[1]:,} tokens were billed for one request, and {aside.most[1]:,} set aside at most",
            where="budget.tokens" if self.usd is None else "budget.usd",
            fix="the provider doesn't keep to max_tokens: settle that with it\n"
            "or set longest_answer to the most tokens it bills; every answer so far is kept",
        )

    def passed(self, endpoint: Endpoint, request: HttpRequest) -> BudgetError:
        """The error of a request that the budget has no room for."""
        usd, tokens = self._expected(_price(endpoint, request, request.max_new_tokens))
        over_usd = self.usd is not None and self.spent_usd + usd > self.usd
        if over_usd:
            what = f"budget.usd {self.usd:g}: {self.spent_usd:.4f} are spent, and one more may cost {usd:.4f}"
        else:
            what = f"budget.tokens {self.tokens:,}: {self.spent_tokens:,} are used, and one more may take {tokens:,}"
        return BudgetError(
            f"stopped before the budget is passed ({what})",
            where="budget.usd" if over_usd else "budget.tokens",
            fix="raise it, and the same command continues: every answer so far is kept\n"
            "plad ledger RUN shows what was spent",
        )


def _price(endpoint: Endpoint, request: HttpRequest, answer_tokens: int) -> _Price:
    """US dollars and tokens of a request with an answer of so many."""
    prompt = request.prompt_bytes + TEMPLATE_TOKENS
    return endpoint.cost(prompt, answer_tokens) or 0.0, prompt + answer_tokens


def _within(bill: _Price, price: _Price) -> bool:
    return bill[0] <= price[0] * _ROUNDING and bill[1] <= price[1]
