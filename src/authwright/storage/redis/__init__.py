"""Redis or Valkey, for what a fleet must agree on at every call and may forget."""

from authwright.storage.redis.allowances import RedisAllowances

__all__ = ["RedisAllowances"]
