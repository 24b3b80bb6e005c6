"""What a run may cost: every request is set aside at its worst price before it is sent."""

from dataclasses import dataclass, field

from plad.answers.ledger import Ledger
from plad.answers.paid import spent
from plad.answers.reply import TEMPLATE_TOKENS, Reply
from plad.config.engines import BudgetSection, Endpoint
from plad.errors import BudgetError
from plad.remote.request import HttpRequest


@dataclass(slots=True)
class Budget:
    """Money and tokens of a run: spent, and set aside for requests in flight.

    A prompt has at most as many tokens as UTF-8 bytes, so that what is set aside is never too little.

    Attributes:
        usd, tokens: most that may be spent in all; None for no limit.
        spent_usd, spent_tokens: by requests that are answered, those of earlier sessions included.
    """

    usd: float | None = None
    tokens: int | None = None
    spent_usd: float = 0.0
    spent_tokens: int = 0
    _aside: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])
    _usd_aside: float = 0.0
    _tokens_aside: int = 0

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

    def set_aside(self, endpoint: Endpoint, request: HttpRequest) -> bool:
        """Set a request's worst price aside; False if that would pass the budget."""
        if self.usd is None and self.tokens is None:
            return True
        usd, tokens = self.most(endpoint, request)
        if self.usd is not None and self.spent_usd + self._usd_aside + usd > self.usd:
            return False
        if self.tokens is not None and self.spent_tokens + self._tokens_aside + tokens > self.tokens:
            return False
        self._aside[request.key] = (usd, tokens)
        self._usd_aside += usd
        self._tokens_aside += tokens
        return True

    @staticmethod
    def most(endpoint: Endpoint, request: HttpRequest) -> tuple[float, int]:
        """US dollars and tokens that a request can cost at most."""
        prompt = request.prompt_bytes + TEMPLATE_TOKENS
        return endpoint.cost(prompt, request.max_new_tokens) or 0.0, prompt + request.max_new_tokens

    def release(self, key: str) -> None:
        """Give back what was set aside for a request that is over."""
        usd, tokens = self._aside.pop(key, (0.0, 0))
        self._usd_aside = self._usd_aside - usd if self._aside else 0.0  # rounding doesn't add up
        self._tokens_aside -= tokens

    def count(self, reply: Reply) -> None:
        """Count what a request really cost."""
        self.spent_usd += reply.cost or 0.0
        self.spent_tokens += reply.prompt_tokens + reply.completion_tokens

    def passed(self, endpoint: Endpoint, request: HttpRequest) -> BudgetError:
        """The error of a request that the budget has no room for."""
        usd, tokens = self.most(endpoint, request)
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
