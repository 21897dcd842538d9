"""The parts of a multi-vector model (ColBERT) after and around its encoder, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from akidb_mlx.checkpoint.head import Dense, Normalize

Role = Literal["query", "document"]


@dataclass(frozen=True)
class QueryExpansion:
    """The tokens that are appended to a query, for whose vectors the scores count too.

    Attributes:
        length: how many tokens a query has with them.
        fixed: whether a longer query is cut to that length.
        attend: whether the query's tokens see them.
        token: the token; None for the tokenizer's mask, or its end of a text where it has none.
    """

    length: int
    fixed: bool
    attend: bool
    token: str | None


@dataclass(frozen=True)
class MultiVector:
    """All of a multi-vector model that an embedding model does not have.

    Attributes:
        modules: map each token's vector, in order.
        limits: most tokens of a text by its role.
        expansion: of queries; None for none.
        skiplist: tokens whose vectors are left out.
        skip_roles: of which texts.
        markers: prompts that begin with a token of the tokenizer's, which must stay whole.
        similarity: "maxsim", or "meanmaxsim" for its mean over a query's tokens.
    """

    modules: tuple[Dense | Normalize, ...]
    limits: dict[Role, int]
    expansion: QueryExpansion | None
    skiplist: tuple[str, ...]
    skip_roles: frozenset[str]
    markers: tuple[str, ...]
    similarity: Literal["maxsim", "meanmaxsim"]
