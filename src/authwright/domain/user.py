"""A user: identity, role, plan, status and the epoch of its credentials."""

from dataclasses import dataclass, field
from typing import Literal

from authwright.domain.instant import Instant
from authwright.domain.names import NameKey, normal_address, normal_username
from authwright.domain.plan import Role, effective_role
from authwright.domain.secrets import UserId

Status = Literal["active", "disabled"]


@dataclass(frozen=True, slots=True)
class User:
    """One account. *username* and *email* are as the user wrote them; at least one is there.

    *auth_epoch* grows with every change of password, role, plan, name or status: tokens of earlier epochs are refused.
    """

    id: UserId
    username: str | None
    email: str | None
    password_hash: str = field(repr=False)
    role: Role
    plan: str
    status: Status
    auth_epoch: int
    created_at: Instant
    updated_at: Instant

    @property
    def names(self) -> tuple[NameKey, ...]:
        """The normal forms of the name and the address."""
        username = () if self.username is None else (normal_username(self.username),)
        return username if self.email is None else (*username, normal_address(self.email))

    @property
    def is_active(self) -> bool:
        return self.status == "active"

    @property
    def shown_role(self) -> Role:
        """The role as answers show it: the plan `admin` makes an admin, too."""
        return effective_role(role=self.role, plan=self.plan)
